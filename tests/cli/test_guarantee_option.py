"""`offramp tune --guarantee`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import ConfigError
from offramp.cli.tune import TuningTarget
from offramp.model import MultiExitForSequenceClassification


def test_a_guarantee_takes_the_place_of_the_other_targets(tiny_encoder: Path, tiny_data: Any) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4]).eval()
    for guarantee in ("disagreement", "conformal"):
        target = TuningTarget(
            guarantee=guarantee, alpha=0.2, delta=0.2 if guarantee == "disagreement" else None
        )
        target.check()
        policy = target.fit(model, tiny_data, "confidence", True)
        assert policy.target["alpha"] == 0.2
        assert policy.target["risk"] == "disagreement"
    with pytest.raises(ConfigError, match="belong to --guarantee"):
        TuningTarget(alpha=0.1).check()
    with pytest.raises(ConfigError, match="one kind of target"):
        TuningTarget(guarantee="disagreement", max_cost=0.5).check()
    with pytest.raises(ConfigError, match="conformal has no --delta"):
        TuningTarget(guarantee="conformal", delta=0.5).check()
