from __future__ import annotations

import numpy as np
import pytest

from offramp._core.errors import CalibrationError, ConfigError
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation import exit_histogram, per_exit, policy_scores
from offramp.metrics import score
from tests.evaluation.made_up import model_trace, regression_trace, trace_of


def test_scores_of_every_exit_with_intervals() -> None:
    trace = model_trace()
    rows = per_exit(trace, metrics=("accuracy", "f1"), resamples=200).to_pylist()
    assert [(r["metric"], r["exit"], r["layer"]) for r in rows[:5]] == [
        ("accuracy", 0, 1),
        ("accuracy", 1, 4),
        ("accuracy", 2, 6),
        ("accuracy", 3, 12),
        ("f1", 0, 1),
    ]
    assert [r["metric"] for r in rows[8:]] == ["auroc"] * 4
    for row in rows[:8]:
        expected = score(row["metric"], trace.labels, trace.predictions()[:, row["exit"]])
        assert row["score"] == pytest.approx(expected)
        assert row["low"] <= row["score"] <= row["high"]
        assert row["cost"] == pytest.approx(row["layer"] / 12)


def test_ranking_of_every_exit() -> None:
    # Exit 1: confidences .9 and .7 are right, .8 is wrong: one pair of two. Exit 2 is always right, exit 3 never.
    sure = [[0.9, 0.6, 0.6], [0.8, 0.7, 0.7], [0.7, 0.8, 0.8]]
    trace = trace_of(sure, [[1, 1, 0], [0, 1, 0], [1, 1, 0]], (1, 2, 4))
    rows = [row for row in per_exit(trace, resamples=200).to_pylist() if row["metric"] == "auroc"]
    assert [row["score"] for row in rows] == [pytest.approx(0.5), *[pytest.approx(np.nan, nan_ok=True)] * 2]
    assert (rows[0]["low"], rows[0]["high"]) == (0, 1)
    assert np.isnan([row["low"] for row in rows[1:]]).all()
    for row in (
        row for row in per_exit(model_trace(), resamples=200).to_pylist() if row["metric"] == "auroc"
    ):
        assert row["low"] <= row["score"] <= row["high"]


def test_regression_has_its_own_metrics() -> None:
    rows = per_exit(regression_trace(), metrics=("pearson", "spearman"), resamples=50).to_pylist()
    assert rows[2]["score"] > rows[0]["score"]
    assert {row["metric"] for row in rows} == {"pearson", "spearman"}
    with pytest.raises(ConfigError, match="is for classification, but the task is regression"):
        per_exit(regression_trace())


def test_histogram_counts_who_leaves_where() -> None:
    trace = trace_of([[0.9, 0.9, 0.9], [0.6, 0.95, 0.9], [0.7, 0.6, 0.9]], np.ones((3, 3)), (1, 2, 4))
    table = exit_histogram(trace, Policy(make_criterion("confidence", 0.65), (1, 2, 4)))
    assert table.to_pydict() == {
        "exit": [0, 1, 2],
        "layer": [1, 2, 4],
        "count": [2, 1, 0],
        "share": [2 / 3, 1 / 3, 0],
    }


def test_policy_scores_with_intervals() -> None:
    trace = model_trace()
    policy = Policy(make_criterion("confidence", 0.8), trace.exit_layers)
    found = policy_scores(trace, policy, resamples=200)
    decisions = policy.decide(trace)
    assert found["score"].estimate == pytest.approx((decisions.prediction == trace.labels).mean())
    assert found["full"].estimate == pytest.approx((trace.predictions()[:, -1] == trace.labels).mean())
    assert found["cost"].estimate == pytest.approx(decisions.flops.sum() / trace.full_flops.sum())
    assert found["drop"].high - found["drop"].low < found["score"].high - found["score"].low  # paired
    assert all(i.low <= i.estimate <= i.high for i in found.values())


def test_a_policy_is_not_reported_on_the_data_it_was_calibrated_on() -> None:
    trace = model_trace()
    policy = Policy(make_criterion("confidence"), trace.exit_layers, calibrated_on="made up")
    with pytest.raises(CalibrationError, match="calibrated on these data"):
        policy_scores(trace, policy)
