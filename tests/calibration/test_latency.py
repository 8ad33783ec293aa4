"""Thresholds for a latency, and the choice of exits, worked out by hand on small traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offramp._core.errors import CalibrationError, ConfigError
from offramp.calibration.latency import choose_exits, keep, tune_latency, with_visits
from offramp.criteria import first_exit, scores
from offramp.engine.segment_times import SegmentTimes
from tests.calibration.calibration_traces import classifier

TIMES = SegmentTimes((1.0,) * 4, (0.1,) * 4, (0.0,) * 4, 0.0)


def test_the_slowest_texts_keep_within_the_bound() -> None:
    trace = classifier(n=400)
    lengths = np.random.default_rng(0).integers(5, 20, 400)
    full = np.quantile(TIMES.leaving(lengths)[:, -1], 0.95)
    reached = []
    for bound in (3.0, 5.0, 8.0, 12.0):
        policy = tune_latency(trace, "confidence", times=TIMES, lengths=lengths, max_p95_ms=bound)
        exit = first_exit(policy.criterion, scores(policy.criterion, trace.scaled(policy.temperatures)))
        spent = TIMES.leaving(lengths)[np.arange(400), exit]
        assert np.quantile(spent, 0.95) <= bound
        assert policy.target["p95_ms"] == pytest.approx(np.quantile(spent, 0.95))
        assert policy.target["mean_ms"] == pytest.approx(spent.mean())
        assert policy.target["full_p95_ms"] == pytest.approx(full)
        reached.append(policy.target["reached"])
    assert reached == sorted(reached)
    assert reached[-1] == max(reached) >= policy.target["full"], "no bound that binds: nothing is lost"


def test_latency_misuse() -> None:
    trace, lengths = classifier(), np.full(60, 10)
    with pytest.raises(CalibrationError, match=r"within 1\.5 ms: the least is 2 ms"):
        tune_latency(trace, "confidence", times=TIMES, lengths=lengths, max_p95_ms=1.5)
    with pytest.raises(CalibrationError, match="above 0, got nan"):
        tune_latency(trace, "confidence", times=TIMES, lengths=lengths, max_p95_ms=float("nan"))
    with pytest.raises(CalibrationError, match=r"60 texts and times of 4 segments, got 59 and 4"):
        tune_latency(trace, "confidence", times=TIMES, lengths=lengths[1:], max_p95_ms=5)


def test_an_exit_that_nobody_leaves_at_is_dropped() -> None:
    trace = classifier(n=400)
    logits = trace.logits.copy()
    logits[:, 1] = 0.0  # the second exit never knows: it is a visit and nothing else
    choice = choose_exits(replace(trace, logits=logits), "confidence", visit=0.01, max_accuracy_drop=0.02)
    assert trace.exit_layers[1] not in choice.layers
    assert choice.layers[-1] == trace.exit_layers[-1]
    costs = [step["cost"] for step in choice.steps]
    assert costs == sorted(costs, reverse=True)
    assert choice.policy.exit_layers == choice.layers


def test_the_dearer_a_visit_the_fewer_exits_are_kept() -> None:
    trace = classifier(n=400)
    kept = [
        len(choose_exits(trace, "confidence", visit=v, max_accuracy_drop=0.05).layers)
        for v in (0.0, 0.2, 0.9)
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1]
    with pytest.raises(ConfigError, match="visit is a share between 0 and 1, got -1"):
        choose_exits(trace, "confidence", visit=-1)


def test_visits_are_charged_by_the_exits_on_the_way() -> None:
    trace = keep(classifier(n=3), (0, 3))
    assert trace.exit_layers == (1, 7)
    charged = with_visits(trace, 0.5)
    np.testing.assert_allclose(charged.flops - trace.flops, trace.full_flops[:, None] * [0.5, 1.0])
    np.testing.assert_allclose(charged.full_flops, trace.full_flops * 1.5)
