"""`evaluate`: a whole evaluation in one call, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import CalibrationError, ConfigError, CriterionError, DataError
from offramp.calibration import tune
from offramp.data import row_hashes
from offramp.data.text_data import TextData
from offramp.evaluation import Evaluation, compare, evaluate, per_exit, policy_scores
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification

LABELS = ("bad", "good")
RULES = ("confidence", "entropy")


@pytest.fixture(scope="module")
def data(tiny_data: Any) -> TextData:
    return TextData("tiny", dict(tiny_data), LABELS, "classification", False, ("accuracy", "f1"))


@pytest.fixture(scope="module")
def models(tiny_encoder: Path) -> dict[str, Any]:
    return {
        "joint": MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4], labels=LABELS),
        "cascade": MultiModelForSequenceClassification.from_backbone(
            str(tiny_encoder), [2, 4], labels=LABELS
        ),
    }


@pytest.fixture(scope="module")
def evaluation(models: dict[str, Any], data: TextData) -> Evaluation:
    policy = tune(trace(models["joint"], data["calibration"]), "entropy", max_accuracy_drop=0.3)
    return evaluate(models, data, policies={"joint": [policy]}, criteria=RULES, max_accuracy_drop=0.2)


def test_the_numbers_are_those_of_the_single_functions(
    evaluation: Evaluation, models: dict[str, Any], data: TextData
) -> None:
    run = trace(models["joint"], data["validation"])
    joint = evaluation.models["joint"]
    assert joint.per_exit.equals(per_exit(run, metrics=("accuracy", "f1")))
    tuned = tune(trace(models["joint"], data["calibration"]), "confidence", max_accuracy_drop=0.2)
    assert joint.rules["confidence"].policy == tuned
    assert joint.rules["confidence"].scores == policy_scores(run, tuned)
    assert joint.rules["entropy"].policy.target["max_accuracy_drop"] == 0.3  # the policy that was given
    assert joint.rules["confidence"].timing is None
    traces = {
        name: model.trace.scaled(model.rules["entropy"].policy.temperatures)
        for name, model in evaluation.models.items()
    }
    rules = {name: model.rules["entropy"].policy.criterion for name, model in evaluation.models.items()}
    compared, expected = evaluation.comparisons["entropy"], compare(traces, rules)
    assert compared.scores.to_pandas().equals(expected.scores.to_pandas())


def test_every_table_is_a_data_frame(evaluation: Evaluation) -> None:
    exits = evaluation.per_exit.to_pandas()
    assert list(exits["model"].unique()) == ["joint", "cascade"]
    assert len(exits) == 2 * 3 * 2  # models, metrics with auroc, exits
    policies = evaluation.policies.to_pandas()
    assert len(policies) == 2 * 2 * 6
    assert set(policies["criterion"]) == set(RULES)
    curves = evaluation.curves.to_pandas()
    assert set(zip(curves["method"], curves["criterion"], strict=True)) == {
        (model, rule) for model in ("joint", "cascade") for rule in RULES
    }
    scores = evaluation.scores.to_pandas()
    assert list(scores["criterion"].unique()) == list(RULES)
    doubts = evaluation.doubts.to_pandas()
    assert doubts["doubt"].str.contains("only 48 examples").sum() == 2
    frame = evaluation.models["joint"].rules["entropy"].curve.to_pandas()
    assert list(frame["point"].unique()) == ["sweep", "static"]


def test_one_model_needs_no_name_and_may_be_timed(models: dict[str, Any], data: TextData) -> None:
    alone = evaluate(models["cascade"], data, timed=8)
    (model,) = alone.models.values()
    rule = model.rules["confidence"]
    assert rule.timing is not None
    assert rule.policy.criterion.threshold in rule.timing["threshold"].to_pylist()
    assert rule.curve.to_pandas()["time_speedup"].notna().any()
    assert alone.comparisons == {}
    with pytest.raises(ConfigError, match="expected several models to compare, got one"):
        _ = alone.scores


def test_nothing_is_reported_on_what_was_fitted_on(models: dict[str, Any], data: TextData) -> None:
    with pytest.raises(ConfigError, match="nothing is reported on it: try validation"):
        evaluate(models, data, split="calibration")
    policy = tune(trace(models["joint"], data["validation"]), "confidence", max_accuracy_drop=0.2)
    with pytest.raises(CalibrationError, match="calibrated on"):
        evaluate(models["joint"], data, policies={"model": [policy]})
    with pytest.raises(CriterionError, match="confidence"):
        evaluate(models["joint"], data, criteria=("confidnce",))


def test_rows_that_were_trained_on_are_refused(
    models: dict[str, Any], data: TextData, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = models["joint"]
    monkeypatch.setattr(joint, "trained_on", row_hashes(data["validation"]))
    with pytest.raises(DataError, match="joint and the validation split of tiny: .* rows were trained on"):
        evaluate({"joint": joint}, data)
    monkeypatch.setattr(joint, "trained_on", row_hashes(data["train"]))
    assert evaluate({"joint": joint}, data, split="train").models["joint"].trace.labels is not None


def test_other_labels_are_refused(models: dict[str, Any], data: TextData) -> None:
    other = replace(data, labels=LABELS[::-1])
    with pytest.raises(DataError, match="joint has the labels 'bad', 'good', but tiny has 'good', 'bad'"):
        evaluate({"joint": models["joint"]}, other)
