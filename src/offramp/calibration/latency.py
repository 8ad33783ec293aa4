"""Thresholds for a latency: the most accurate rule whose 95th percentile stays within a bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace
from offramp.calibration.thresholds import MAX_POINTS, SLACK, check_request, measure, prepare
from offramp.criteria import Criterion, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy
from offramp.engine.segment_times import SegmentTimes
from offramp.metrics import score

PERCENTILE = 0.95


def tune_latency(
    trace: Trace,
    criterion: str | Criterion,
    *,
    times: SegmentTimes,
    lengths: NDArray[np.int64],
    max_p95_ms: float,
    metric: str = "accuracy",
    temperatures: bool = True,
) -> Policy:
    """Choose the threshold with the best metric whose latency, one text at a time, keeps within a bound.

    Args:
        trace: labelled run of the model over the calibration split.
        criterion: name of the rule, or a rule whose threshold is to be replaced.
        times: of the model's segments, measured where it will run; tokenisation is not in them.
        lengths: tokens of each text of the trace `(examples,)`.
        max_p95_ms: largest 95th percentile of the milliseconds that a text takes.
        metric: key of `METRICS`.
        temperatures: whether to fit a temperature per exit first; regression has none.

    Returns:
        The policy, with `target` saying what was asked for and what was reached on this trace.

    Raises:
        CalibrationError: where no threshold keeps within the bound; for times of another model, another number of
            lengths, a bound that is not above 0, and as `tune`.
    """
    if not 0 < max_p95_ms < np.inf:
        raise CalibrationError(f"expected max_p95_ms above 0, got {max_p95_ms}")
    if len(lengths) != len(trace) or len(times.fixed) != trace.exits:
        raise CalibrationError(
            f"expected a length for each of {len(trace)} texts and times of {trace.exits} segments, got {len(lengths)} "
            f"and {len(times.fixed)}: measure this model, on the texts of the trace"
        )
    rule = make_criterion(criterion) if isinstance(criterion, str) else criterion
    check_request(trace, rule, metric)
    policy = prepare(trace, rule, temperatures)
    rule = policy.criterion
    table = scores(rule, trace.scaled(policy.temperatures))
    grid = threshold_grid(rule, table, MAX_POINTS)
    exits = np.stack([first_exit(with_threshold(rule, threshold), table) for threshold in grid])
    rows = np.arange(len(trace))
    spent = times.leaving(lengths)[rows, exits]  # (thresholds, examples)
    p95, mean = np.quantile(spent, PERCENTILE, axis=1), spent.mean(axis=1)
    fits = np.flatnonzero(p95 <= max_p95_ms + SLACK)
    if not len(fits):
        raise CalibrationError(
            f"no threshold keeps the 95th percentile within {max_p95_ms:g} ms: the least is {p95.min():.3g} ms; allow "
            "more, add an earlier exit, or export in int8"
        )
    labels, predictions = trace.require_labels(), trace.predictions()
    values = np.array([score(metric, labels, predictions[rows, exits[i]]) for i in fits])
    best = int(fits[np.lexsort((mean[fits], -values))[0]])
    target = {
        "max_p95_ms": max_p95_ms,
        "p95_ms": float(p95[best]),
        "mean_ms": float(mean[best]),
        "full_p95_ms": float(np.quantile(times.leaving(lengths)[:, -1], PERCENTILE)),
        **measure(trace, exits[best], metric),
    }
    return replace(policy, criterion=with_threshold(rule, grid[best]), target=target)
