from __future__ import annotations

import pytest

from offramp._core.errors import ConfigError
from offramp.evaluation import CONVENTIONS, from_paper, to_paper


def test_sweet_calls_cost_speed_up() -> None:
    assert to_paper("sweet", 0.3, 12) == 0.3
    assert CONVENTIONS["sweet"].lower_is_faster


def test_pabee_counts_the_layers_not_run() -> None:
    assert to_paper("pabee", 3.0, 12) == 0.75
    assert to_paper("pabee", 12.0, 12) == 0
    assert not CONVENTIONS["pabee"].lower_is_faster


def test_waffle_is_one_too_high() -> None:
    assert to_paper("waffle", 12.0, 12) == 13


@pytest.mark.parametrize("paper", sorted(CONVENTIONS))
@pytest.mark.parametrize("value", [0.25, 1.0, 6.0])
def test_there_and_back(paper: str, value: float) -> None:
    assert from_paper(paper, to_paper(paper, value, 24), 24) == pytest.approx(value)
    assert CONVENTIONS[paper].ours in ("cost", "depth")


def test_unknown_papers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown paper convention 'pabbe'. Did you mean 'pabee'"):
        to_paper("pabbe", 1.0, 12)
