"""Candidates for the thresholds of a policy: their costs and metrics on a calibration trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Trace
from offramp.calibration.own_thresholds import ThresholdSearch
from offramp.criteria import Criterion, best_so_far, first_exit, threshold_grid, with_threshold
from offramp.engine.policy import Policy
from offramp.metrics import score

MAX_POINTS = 500  # thresholds to try for a metric that is computed anew for each


@dataclass(frozen=True)
class CalibrationSweep:
    """Cost and metric of each candidate on one trace: arrays `(points,)`.

    The candidates are thresholds of a grid, the laxest first. Thresholds of their own for each exit stand before them.
    """

    thresholds: Sequence[float | tuple[float, ...]] | NDArray[np.float64]
    costs: NDArray[
        np.float64
    ]  # mean FLOPs as a share of the full model's; above 1 where a cascade recomputes
    values: NDArray[np.float64]  # of the metric
    full: float  # the metric of the full model, the last exit

    def followed_by(self, other: CalibrationSweep) -> CalibrationSweep:
        """All candidates of two sweeps of one trace."""
        return CalibrationSweep(
            [*self.thresholds, *other.thresholds],
            np.concatenate([self.costs, other.costs]),
            np.concatenate([self.values, other.values]),
            self.full,
        )


def sweep(trace: Trace, policy: Policy, table: NDArray[np.float64], metric: str) -> CalibrationSweep:
    """Cost and metric of every useful threshold for all exits, from one table of scores `(examples, exits)`."""
    criterion, labels, predictions = policy.criterion, trace.require_labels(), policy.answers(trace)
    additive = metric == "accuracy"
    grid = threshold_grid(criterion, table, None if additive else MAX_POINTS)
    if additive:
        right = (predictions == labels[:, None]).astype(np.float64)
        values = totals(right, criterion, table, grid) / len(trace)
    else:
        rows = np.arange(len(trace))
        exits = [first_exit(with_threshold(criterion, threshold), table) for threshold in grid]
        values = np.array([score(metric, labels, predictions[rows, exit]) for exit in exits])
    costs = totals(trace.flops, criterion, table, grid) / trace.full_flops.sum()
    return CalibrationSweep(grid, costs, values, score(metric, labels, trace.predictions()[:, -1]))


def sweep_own(trace: Trace, policy: Policy, table: NDArray[np.float64], metric: str) -> CalibrationSweep:
    """Cost and metric of thresholds of their own for each exit, from strict to lax; see `ThresholdSearch`."""
    rows, labels, answers = np.arange(len(trace)), trace.require_labels(), policy.answers(trace)
    costs = trace.flops / trace.full_flops.mean()
    vectors = own_thresholds(trace, policy, table, costs)
    exits = [first_exit(with_threshold(policy.criterion, vector), table) for vector in vectors]
    return CalibrationSweep(
        vectors,
        np.array([costs[rows, exit].mean() for exit in exits]),
        np.array([score(metric, labels, answers[rows, exit]) for exit in exits]),
        score(metric, labels, trace.predictions()[:, -1]),
    )


def own_thresholds(
    trace: Trace, policy: Policy, table: NDArray[np.float64], costs: NDArray[np.float64]
) -> list[tuple[float, ...]]:
    """The path of thresholds for costs `(examples, exits)`, each different from the one before it.

    A wrong class is a loss of 1. The loss of a regression is the squared error as a share of the labels' variance.
    """
    labels, answers = trace.require_labels(), policy.answers(trace)
    if trace.exits == 1:
        return []
    losses = (answers != labels[:, None]).astype(np.float64)
    if trace.kind == "regression":
        losses = (answers - labels[:, None]).astype(np.float64) ** 2 / (labels.var() or 1.0)
    return list(dict.fromkeys(ThresholdSearch(policy.criterion, table, losses, costs).path()))


def totals(
    values: NDArray[np.float64], criterion: Criterion, table: NDArray[np.float64], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """For every threshold, sum over the examples a value at the exit taken.

    An example waits at an exit while no score so far passes the threshold. Each wait changes its
    value by the difference to the next exit. Sorted by score, the sum of all waits is one cumulative sum.

    Args:
        values: `(examples, exits)`, such as costs.
        criterion: the rule.
        table: its scores `(examples, exits)`.
        grid: thresholds `(points,)`, one for each sum returned.
    """
    best = best_so_far(criterion, table)[:, :-1].ravel()
    order = np.argsort(best)
    sums = np.concatenate([[0.0], np.cumsum(np.diff(values, axis=1).ravel()[order])])
    below = sums[np.searchsorted(best[order], grid, side="left")]  # all waits with score < threshold
    waits = sums[-1] - below if criterion.leaves_below else below
    return values[:, 0].sum() + waits
