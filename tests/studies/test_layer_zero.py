"""The comparison of models with layer 0 and without it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp._core.trace import Trace
from offramp.criteria import make_criterion
from offramp.studies.training.held_out import held_out_costs, mean_numbers
from offramp.studies.training.plan import make_sweep
from offramp.studies.training.results import ModelSetting
from offramp.studies.training.tables import layer_zero_table
from tests.evaluation.made_up import trace_of

LAYERS = (0, 2, 4)


def made(sure: list[float], layers: tuple[int, ...] = LAYERS) -> Trace:
    """Eight of ten texts are right at layer 0, in which it is as sure as given; the last exit is always right."""
    confidences = np.column_stack([np.repeat(sure, [8, 2]), np.full(10, 0.9), np.full(10, 0.95)])
    right = np.column_stack([np.repeat([True, False], [8, 2]), np.ones((10, 2), dtype=bool)])
    costs = np.tile([0.0, 2.0, 4.0], (10, 1))
    trace = trace_of(np.tile(confidences, (12, 1)), np.tile(right, (12, 1)), layers)
    return Trace(**{**vars(trace), "flops": np.tile(costs, (12, 1)), "full_flops": np.full(120, 4.0)})


def test_costs_worked_out_by_hand() -> None:
    ahead, behind = held_out_costs(
        made([0.8, 0.6]), made([0.85, 0.65]), make_criterion("confidence", 0.5), "accuracy"
    )
    assert (ahead["exits"], behind["exits"]) == ((0, 2, 4), (2, 4))
    assert (ahead["reached"], behind["reached"], ahead["full"]) == (1, 1, 1)
    assert ahead["cost"] == pytest.approx(0.2 * 0.5)  # eight of ten leave at layer 0, two at layer 2
    assert behind["cost"] == pytest.approx(0.5)


def test_models_without_layer_0_have_nothing_to_compare() -> None:
    trace = made([0.8, 0.6], (1, 2, 4))
    assert held_out_costs(trace, trace, make_criterion("confidence", 0.5), "accuracy") == []
    assert mean_numbers([[], []]) == []


def test_the_table_has_means_over_seeds() -> None:
    def result(cost: float) -> Any:
        rows = [{"cost": cost, "reached": 0.8, "full": 0.9}, {"cost": 0.5, "reached": 0.7, "full": 0.9}]
        return SimpleNamespace(held_out=tuple(rows))

    groups = {ModelSetting("minilm-l6", "trec", 6000): {"joint": [result(0.2), result(0.3)], "sweet": []}}
    table = layer_zero_table(SimpleNamespace(groups=groups))  # type: ignore[arg-type]
    (row,) = table.rows
    assert row[3:] == ("6,000", "2", "0.250", "0.500", "0.500", "0.800", "0.700", "0.900")


def test_a_plan_may_have_layer_0() -> None:
    keys = {
        "backbones": {"minilm-l3": [0, 1, 3]},
        "tasks": "trec",
        "strategies": "joint",
        "learning_rate": 1e-4,
    }
    assert [trial.exits for trial in make_sweep(keys).trials] == [(0, 1, 3)]
    (alone,) = make_sweep({**keys, "backbones": {"minilm-l3": [0]}}).trials
    with pytest.raises(ConfigError, match="minilm-l3 has an exit at layer 0 alone: add at least one layer"):
        alone.check()
