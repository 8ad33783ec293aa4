"""Reliability rows of every exit: before and after temperatures, pooled, and the errors they come to."""

from __future__ import annotations

import numpy as np
import pytest

from offramp._core.trace import Trace
from offramp.evaluation.operating_points import reliability_table
from offramp.reports.reliability import calibration_errors, pool_reliability
from tests.calibration.calibration_traces import exit_ece
from tests.evaluation.made_up import model_trace

LOGIT = float(np.log(9.0))  # confidence .9


def two_exits(right: int) -> Trace:
    """Ten examples of two classes: the first exit answers 0 with confidence .9, the second is at .5."""
    logits = np.zeros((10, 2, 2), dtype=np.float32)
    logits[:, 0, 0] = LOGIT
    labels = np.array([0] * right + [1] * (10 - right))
    return Trace(
        logits=logits,
        exit_layers=(1, 2),
        flops=np.ones((10, 2)),
        full_flops=np.ones(10),
        labels=labels,
        fingerprint="ten",
    )


def test_hand_worked() -> None:
    table = reliability_table(two_exits(right=6), [2.0, 1.0])
    rows = {(row["layer"], row["side"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows == 4
    before, after = rows[1, "before"], rows[1, "after"]
    assert (before["count"], before["confidence"], before["accuracy"]) == pytest.approx((10, 0.9, 0.6))
    assert after["confidence"] == pytest.approx(0.75)  # 3 : 1 after the square root of the odds
    errors = calibration_errors(table)
    assert errors[1, "before"] == pytest.approx(0.3)
    assert errors[1, "after"] == pytest.approx(0.15)
    assert errors[2, "before"] == errors[2, "after"] == pytest.approx(0.1)


def test_errors_are_those_of_the_calibration_room() -> None:
    trace = model_trace(0)
    temperatures = tuple(np.linspace(0.5, 2.0, trace.exits))
    errors = calibration_errors(reliability_table(trace, temperatures))
    for side, scale in (("before", None), ("after", temperatures)):
        found = [errors[layer, side] for layer in trace.exit_layers]
        assert found == pytest.approx(exit_ece(trace, scale), abs=1e-6)


def test_pooling_weights_by_count() -> None:
    pooled = pool_reliability([reliability_table(two_exits(right=n), None) for n in (6, 10)])
    assert set(pooled["side"].to_pylist()) == {"before"}
    errors = calibration_errors(pooled)
    assert errors[1, "before"] == pytest.approx(0.1)  # .9 sure, 16 of 20 right
    assert pooled["count"].to_pylist() == [20, 20]
