"""Operating points: the exit of every example, with scores and costs under any weighting; single exits, policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.calibration import refuse_if_calibrated, reliability
from offramp.criteria import Criterion, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import from_rows, table
from offramp.evaluation.bootstrap import Interval, Statistic, Weights, intervals
from offramp.evaluation.conventions import layer_speedup
from offramp.evaluation.weighted import weighted_auroc, weighted_score
from offramp.metrics import find_metric

if TYPE_CHECKING:
    import pyarrow as pa

Exits = NDArray[np.intp]  # (examples, points): exit index of every example at every operating point

# Exits count from 0, layers from 1; costs are shares of the full model's FLOPs.
PER_EXIT = ("exit", "layer", "cost", "metric", "score", "low", "high")
HISTOGRAM = ("exit", "layer", "count", "share")
RELIABILITY = ("layer", "side", "low", "high", "count", "confidence", "accuracy")
SIDES = ("before", "after")
RANKING = "auroc"  # a metric of `per_exit`
BINS = 15


@dataclass(frozen=True)
class ThresholdSweep:
    """All outcomes of a rule (by its name) on a trace, from the most permissive threshold to the strictest.

    Attributes:
        thresholds: `(points,)`.
        exits: `(examples, points)`, 0-based.
    """

    criterion: str
    thresholds: NDArray[np.float64]
    exits: Exits


def sweep_thresholds(
    trace: Trace, criterion: str | Criterion, temperatures: Sequence[float] | None = None, points: int = 200
) -> ThresholdSweep:
    """Exits at every threshold that gives a distinct outcome; arguments as in `speed_accuracy`."""
    if len(trace) == 0:
        raise DataError("expected examples to sweep thresholds over, got an empty trace")
    rule = make_criterion(criterion) if isinstance(criterion, str) else criterion
    if temperatures is not None:
        rule = rule.with_temperatures(temperatures)
    rated = scores(rule, trace.scaled(temperatures))
    thresholds = threshold_grid(rule, rated, points)
    exits = [first_exit(with_threshold(rule, threshold), rated) for threshold in thresholds]
    return ThresholdSweep(rule.name, thresholds, np.stack(exits, axis=1))


def static_exits(trace: Trace) -> Exits:
    """All examples at exit 0, all at exit 1, …: `(examples, exits)`."""
    return np.broadcast_to(np.arange(trace.exits), (len(trace), trace.exits))


def predictions_at(trace: Trace, exits: Exits) -> NDArray[Any]:
    """The prediction for each example at its exit: `(examples, points)`."""
    return np.take_along_axis(trace.predictions(), exits, axis=1)


def commonest_answer(trace: Trace) -> Any:
    """The best constant answer: the commonest class, or the mean target."""
    labels = trace.require_labels()
    if trace.kind == "regression":
        return labels.mean()
    values, counts = np.unique(labels, return_counts=True)
    return values[counts.argmax()]


def score_statistic(trace: Trace, exits: Exits, metric: str, names: Sequence[str]) -> Statistic:
    """The score at each operating point, as a statistic; `names` `(points,)`."""
    find_metric(metric, trace.kind)
    labels, predictions = trace.require_labels(), predictions_at(trace, exits)

    def values(weights: Weights) -> NDArray[np.float64]:
        return weighted_score(metric, labels, predictions, weights)

    return Statistic(tuple(names), len(trace), trace.fingerprint, values)


def cost_statistic(trace: Trace, exits: Exits, names: Sequence[str]) -> Statistic:
    """Mean FLOPs spent / mean FLOPs of the full model at each operating point, as a statistic."""
    spent = np.take_along_axis(trace.flops, exits, axis=1)

    def values(weights: Weights) -> NDArray[np.float64]:
        return (weights @ spent) / (weights @ trace.full_flops)[:, None]

    return Statistic(tuple(names), len(trace), trace.fingerprint, values)


def exit_statistic(trace: Trace, metric: str = "accuracy") -> Statistic:
    """The score of every single exit: columns `layer l`."""
    names = [f"layer {layer}" for layer in trace.exit_layers]
    return score_statistic(trace, static_exits(trace), metric, names)


def ranking_statistic(trace: Trace) -> Statistic:
    """How well the confidence of every exit ranks its right answers above its wrong ones: columns `layer l`."""
    right = trace.predictions() == trace.require_labels()[:, None]
    confidence = softmax(trace.logits).max(axis=2)
    names = tuple(f"layer {layer}" for layer in trace.exit_layers)

    def values(weights: Weights) -> NDArray[np.float64]:
        return weighted_auroc(right, confidence, weights)

    return Statistic(names, len(trace), trace.fingerprint, values)


def policy_statistic(trace: Trace, policy: Policy, metric: str = "accuracy") -> Statistic:
    """Scores, costs and depths of a model under a policy, as a statistic.

    Its columns are `score`, `full` (score of the last exit), `drop` (full - score), `cost` (share of the full model's
    FLOPs), `depth` (mean exit layer) and `layer_speedup` (L / depth).
    """
    decisions = policy.decide(trace)
    taken, last = decisions.exit, np.full_like(decisions.exit, trace.exits - 1)
    scored = score_statistic(
        trace, np.stack([decisions.answer_exit, last], axis=1), metric, ["score", "full"]
    )
    cost = cost_statistic(trace, taken[:, None], ["cost"])
    layers = np.asarray(trace.exit_layers, dtype=np.float64)[taken, None]

    def values(weights: Weights) -> NDArray[np.float64]:
        score, full = scored.values(weights).T
        depth = (weights @ layers)[:, 0] / weights.sum(axis=1)
        cheap = cost.values(weights)[:, 0]
        return np.stack([score, full, full - score, cheap, depth, layer_speedup(trace.depth, depth)], axis=1)

    names = ("score", "full", "drop", "cost", "depth", "layer_speedup")
    return Statistic(names, len(trace), trace.fingerprint, values)


def per_exit(
    trace: Trace, *, metrics: Sequence[str] = ("accuracy",), resamples: int = 1000, seed: int = 0
) -> pa.Table:
    """Scores of every single exit, with 95 % bootstrap intervals: a row per metric and exit, columns `PER_EXIT`.

    For a classifier the last metric is `auroc`: how well the exit's confidence ranks its right answers above its wrong
    ones; see `offramp.metrics.auroc`. It is NaN for an exit that is always right, or always wrong.

    Raises:
        DataError: the trace has no labels.
        ConfigError: the metric is unknown or does not fit the task.
    """
    cost = cost_statistic(trace, static_exits(trace), [""] * trace.exits).exact()
    statistics = {metric: exit_statistic(trace, metric) for metric in metrics}
    if trace.kind == "classification":
        statistics[RANKING] = ranking_statistic(trace)
    rows = []
    for metric, statistic in statistics.items():
        for exit, score in enumerate(intervals(statistic, resamples=resamples, seed=seed)):
            layer = trace.exit_layers[exit]
            rows.append((exit, layer, cost[exit], metric, score.estimate, score.low, score.high))
    return from_rows(PER_EXIT, rows)


def policy_scores(
    trace: Trace, policy: Policy, *, metric: str = "accuracy", resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The numbers of `policy_statistic` for a model under a policy by name, with 95 % bootstrap intervals.

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
