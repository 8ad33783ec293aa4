"""Operating points as arrays: the exit of every example, and its scores and costs under any weighting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.trace import Trace
from offramp.criteria import Criterion, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy
from offramp.evaluation.bootstrap import Statistic, Weights
from offramp.evaluation.weighted import weighted_score
from offramp.metrics import find_metric

Exits = NDArray[np.intp]  # (examples, points): exit index of every example at every operating point


@dataclass(frozen=True)
class ThresholdSweep:
    """All outcomes of a rule on a trace, from the most permissive threshold to the strictest.

    Attributes:
        criterion: the rule's name.
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
    table = scores(rule, trace.scaled(temperatures))
    thresholds = threshold_grid(rule, table, points)
    exits = [first_exit(with_threshold(rule, threshold), table) for threshold in thresholds]
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


def policy_statistic(trace: Trace, policy: Policy, metric: str = "accuracy") -> Statistic:
    """Scores, costs and depths of a model under a policy, as a statistic.

    Its columns are `score`, `full` (score of the last exit), `drop` (full - score), `cost` (share of the full model's
    FLOPs), `depth` (mean exit layer) and `layer_speedup` (L / depth).
    """
    taken = policy.decide(trace).exit
    last = np.full_like(taken, trace.exits - 1)
    scored = score_statistic(trace, np.stack([taken, last], axis=1), metric, ["score", "full"])
    cost = cost_statistic(trace, taken[:, None], ["cost"])
    layers = np.asarray(trace.exit_layers, dtype=np.float64)[taken, None]

    def values(weights: Weights) -> NDArray[np.float64]:
        score, full = scored.values(weights).T
        depth = (weights @ layers)[:, 0] / weights.sum(axis=1)
        cheap = cost.values(weights)[:, 0]
        return np.stack([score, full, full - score, cheap, depth, trace.depth / depth], axis=1)

    names = ("score", "full", "drop", "cost", "depth", "layer_speedup")
    return Statistic(names, len(trace), trace.fingerprint, values)
