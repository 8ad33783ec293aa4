"""`offramp.tune` on a trace, and on a model with its data."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError, DataError
from offramp.calibration import TuningTarget, tune, tune_conformal, tune_threshold, tune_with_guarantee
from offramp.criteria import make_criterion
from offramp.data import row_hashes
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification
from offramp.model.prune_exits import prune_exits
from tests.calibration.calibration_traces import classifier


@pytest.fixture(scope="module")
def model(tiny_encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2, 4]).eval()


def test_a_trace_is_tuned_for_every_target() -> None:
    run = classifier(n=400)
    assert tune(run, "entropy", max_cost=0.5) == tune_threshold(run, "entropy", max_cost=0.5)
    assert tune(run, max_accuracy_drop=0.02) == tune_threshold(run, "confidence", max_accuracy_drop=0.02)
    rule = make_criterion("patience_confidence", confidence=0.6)
    assert tune(run, rule, max_cost=0.9).criterion == tune_threshold(run, rule, max_cost=0.9).criterion
    expected = tune_with_guarantee(run, "confidence", risk="disagreement", alpha=0.1, delta=0.2)
    assert tune(run, guarantee="disagreement", alpha=0.1, delta=0.2) == expected
    assert tune(run, "margin", guarantee="conformal", alpha=0.1) == tune_conformal(run, "margin", alpha=0.1)


def test_a_model_is_traced_on_its_calibration_split(model: Any, tiny_data: Any) -> None:
    run = trace(model, tiny_data["calibration"])
    assert tune(model, tiny_data, "entropy", max_cost=0.9) == tune(run, "entropy", max_cost=0.9)
    assert tune(model, tiny_data) == tune(run, max_accuracy_drop=0.01)
    assert tune(model, tiny_data, temperatures=False, max_cost=0.9).temperatures is None
    for guarantee, delta in (("disagreement", 0.2), ("conformal", None)):
        policy = tune(model, tiny_data, guarantee=guarantee, alpha=0.2, delta=delta)  # type: ignore[arg-type]
        assert policy.target["alpha"] == 0.2
        assert policy.target["risk"] == "disagreement"


def test_a_latency_is_measured_on_the_model(model: Any, tiny_data: Any) -> None:
    policy = tune(model, tiny_data, max_latency_ms=1e6)
    assert policy.target["p95_ms"] <= policy.target["full_p95_ms"] < 1e6


def test_exits_that_do_not_pay_are_dropped(
    model: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offramp.inference.tracing.exit_overhead", lambda model, encodings: 0.5)
    useless = deepcopy(model)
    answers = trace(model, tiny_data["calibration"]).predictions()[:, -1]
    for parameter in useless.heads[0].parameters():
        parameter.data.zero_()
    useless.heads[0].classifier.bias.data[1 - answers[0]] = (
        0.1  # always wrong, where the model is always right
    )
    right = tiny_data["calibration"].remove_columns("label").add_column("label", answers)
    data = {**tiny_data, "calibration": right}
    policy = tune(useless, data, drop_exits=True, max_accuracy_drop=0.0)
    assert 1 not in policy.exit_layers
    assert policy == tune(prune_exits(useless, policy.exit_layers), data, max_accuracy_drop=0.0)


def test_targets_that_contradict_each_other() -> None:
    for options, message in (
        ({"alpha": 0.1}, "belong to a guarantee"),
        ({"guarantee": "disagreement", "max_cost": 0.5}, "one kind of target"),
        ({"max_latency_ms": 5.0, "max_cost": 0.5}, "one kind of target"),
        ({"max_latency_ms": 5.0, "guarantee": "conformal"}, "one kind of target"),
        ({"guarantee": "conformal", "delta": 0.5}, "conformal guarantee has no delta"),
        ({"timed_on": "served"}, "give both, or neither"),
    ):
        with pytest.raises(ConfigError, match=message):
            TuningTarget(**options)  # type: ignore[arg-type]


def test_misuse(model: Any, tiny_data: Any) -> None:
    with pytest.raises(DataError, match="expected data with splits, as load_data returns them, got str"):
        tune(model, "confidence")
    for options in ({"max_latency_ms": 5.0}, {"drop_exits": True, "max_cost": 0.5}):
        with pytest.raises(ConfigError, match="need a model to measure"):
            tune(classifier(), "confidence", **options)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="voids a guarantee"):
        tune(model, tiny_data, guarantee="conformal", drop_exits=True)
    seen = prune_exits(model, model.exit_layers)
    seen.trained_on = np.sort(row_hashes(tiny_data["calibration"]))
    with pytest.raises(DataError, match="rows were trained on"):
        tune(seen, tiny_data)
