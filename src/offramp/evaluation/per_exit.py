"""Each exit by itself: its score, its reliability, and the examples that leave there under a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.calibration import refuse_if_calibrated, reliability
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import from_rows, table
from offramp.evaluation.bootstrap import Interval, intervals
from offramp.evaluation.operating_points import cost_statistic, exit_statistic, policy_statistic, static_exits

if TYPE_CHECKING:
    import pyarrow as pa

# Exits count from 0, layers from 1; costs are shares of the full model's FLOPs.
PER_EXIT = ("exit", "layer", "cost", "metric", "score", "low", "high")
HISTOGRAM = ("exit", "layer", "count", "share")
RELIABILITY = ("layer", "side", "low", "high", "count", "confidence", "accuracy")
SIDES = ("before", "after")
BINS = 15


def per_exit(
    trace: Trace, *, metrics: Sequence[str] = ("accuracy",), resamples: int = 1000, seed: int = 0
) -> pa.Table:
    """Scores of every single exit, with 95 % bootstrap intervals: a row per metric and exit, columns `PER_EXIT`.

    Args:
        trace: run of the model over labelled evaluation data.
        metrics: keys of `offramp.metrics.METRICS`.
        resamples, seed: of the bootstrap.

    Raises:
        DataError: the trace has no labels.
        ConfigError: the metric is unknown or does not fit the task.
    """
    cost = cost_statistic(trace, static_exits(trace), [""] * trace.exits).exact()
    rows = []
    for metric in metrics:
        scores = intervals(exit_statistic(trace, metric), resamples=resamples, seed=seed)
        for exit, score in enumerate(scores):
            layer = trace.exit_layers[exit]
            rows.append((exit, layer, cost[exit], metric, score.estimate, score.low, score.high))
    return from_rows(PER_EXIT, rows)


def policy_scores(
    trace: Trace, policy: Policy, *, metric: str = "accuracy", resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The numbers of `policy_statistic` for a model under a policy by name, with 95 % bootstrap intervals.

    Args:
        trace: run of the model over labelled evaluation data.
        policy: of the model.
        metric: a key of `offramp.metrics.METRICS`.
        resamples, seed: of the bootstrap.

    Raises:
        CalibrationError: the policy was calibrated on the same data.
        DataError: the trace has no labels.
    """
    refuse_if_calibrated(policy, trace)
    measured = intervals(policy_statistic(trace, policy, metric), resamples=resamples, seed=seed)
    return {interval.name: interval for interval in measured}


def exit_histogram(trace: Trace, policy: Policy) -> pa.Table:
    """How many examples leave at each exit under a policy: a row per exit, columns `HISTOGRAM`.

    Raises:
        CriterionError: the policy was made for another model.
    """
    counts = np.bincount(policy.decide(trace).exit, minlength=trace.exits)
    exits, shares = np.arange(trace.exits), counts / max(len(trace), 1)
    columns = (exits, trace.exit_layers, counts, shares)
    return table(dict(zip(HISTOGRAM, columns, strict=True)))


def reliability_table(run: Trace, temperatures: Sequence[float] | None, bins: int = BINS) -> pa.Table:
    """Reliability diagrams of every exit, with the logits as they are and divided by the exit's temperature.

    Args:
        run: labelled trace of a classifier, logits unscaled; not the one that the temperatures were fitted on.
        temperatures: one per exit; None leaves the side `after` out.
        bins: of equal width.

    Returns:
        A row for each exit, side and bin that holds examples, with the columns `RELIABILITY`.

    Source: Guo et al. 2017, figure 4.
    """
    sides = {SIDES[0]: run} if temperatures is None else {SIDES[0]: run, SIDES[1]: run.scaled(temperatures)}
    labels, rows = run.require_labels(), []
    for k, layer in enumerate(run.exit_layers):
        for side, trace in sides.items():
            diagram = reliability(softmax(trace.logits[:, k]), labels, bins)
            for i in np.flatnonzero(diagram.count).tolist():
                edges = (float(diagram.edges[i]), float(diagram.edges[i + 1]))
                means = (float(diagram.confidence[i]), float(diagram.accuracy[i]))
                rows.append((layer, side, *edges, int(diagram.count[i]), *means))
    return from_rows(RELIABILITY, rows)
