"""Options that make no sense are refused where they are made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import ConfigError
from offramp.model import MultiExitForSequenceClassification
from offramp.training.options import TrainingOptions
from offramp.training.stages import arguments


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [0, -1, math.nan, math.inf]),
        ("max_steps", [-1]),
        ("batch_size", [0]),
        ("learning_rate", [0.0, -1e-4, 1.0, math.nan]),
        ("warmup", [-0.1, 1.5, math.nan]),
        ("weight_decay", [-0.1, math.nan]),
        ("max_grad_norm", [-1, math.inf, math.nan, "1"]),
        ("order", ["rnadom", None]),
        ("precision", ["fp8"]),
        ("epochs", ["2", None, True]),
        ("batch_size", [2.5, "16"]),
        ("learning_rate", ["fast"]),
        ("strategy_options", [["weights"]]),
        ("report_to", ["none", ["tensorbord"], [None], 3, ["wandb", "wandb"]]),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=name):
            TrainingOptions(**{name: value})


def test_a_warmup_of_all_steps_is_a_share_too(tmp_path: Path, tiny_encoder: Path) -> None:
    """The library takes 1 for one step."""
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2])
    for share, steps in ((0.0, 0), (0.5, 50), (1.0, 100)):
        made = arguments(TrainingOptions(warmup=share), 0, tmp_path, model)
        assert made.get_warmup_steps(100) == steps
