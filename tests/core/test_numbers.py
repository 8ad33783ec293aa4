from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offramp._core.arguments import check_cost, check_share, percent_hint
from offramp._core.errors import ConfigError


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.25), np.int64(1)])
def test_shares(value: Any) -> None:
    check_share("drop", value)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (5, {"unit": " points"}, "drop is a share between 0 and 1, got 5: write 0.05 for 5 points"),
        (2.5, {}, "drop is a share between 0 and 1, got 2.5: write 0.025 for 2.5 %"),
        ("5%", {}, "drop is a share between 0 and 1, got '5%': write 0.05 for 5 %"),
        (" 12.5 % ", {}, "drop is a share between 0 and 1, got ' 12.5 % ': write 0.125 for 12.5 %"),
        (np.float32(5), {}, "drop is a share between 0 and 1, got 5: write 0.05 for 5 %"),
        (-0.1, {}, "drop is a share between 0 and 1, got -0.1: write 0.05 for 5 %"),
        (float("nan"), {}, "drop is a share between 0 and 1, got nan: write 0.05 for 5 %"),
        (True, {}, "drop is a share between 0 and 1, got True: write 0.05 for 5 %"),
        (None, {}, "drop is a share between 0 and 1, got None: write 0.05 for 5 %"),
        (0, {"zero": False}, "drop is a share above 0 and at most 1, got 0: write 0.05 for 5 %"),
        (1, {"zero": False, "full": False}, "drop is a share above 0 and below 1, got 1: write 0.05 for 5 %"),
    ],
)
def test_what_is_no_share_is_refused_with_how_to_write_one(value: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_share("drop", value, **options)
    assert str(refused.value) == message


def test_a_cost_may_lie_above_the_full_models_where_a_model_recomputes() -> None:
    check_cost("cost", 1.5, 3)
    for value, most in ((1.5, 1), (50, 3), (0, 3), (-1, 3), ("2", 3)):
        with pytest.raises(ConfigError, match="cost is a share above 0 and at most 1"):
            check_cost("cost", value, most)


@pytest.mark.parametrize("value", ["five", "0.5", "5 points", "-5%", 0.5, 1, 101, None, "1.2.3%", "%"])
def test_no_percentage_gets_no_hint(value: Any) -> None:
    assert percent_hint(value) == ""
