"""The area of a speed-accuracy curve: one number for a range of speeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
from offramp._core.trace import Trace
from offramp.criteria import Criterion
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.bootstrap import Statistic, Weights
from offramp.evaluation.curves import Curve
from offramp.evaluation.operating_points import (
    commonest_answer,
    cost_statistic,
    predictions_at,
    sweep_thresholds,
)
from offramp.evaluation.weighted import weighted_score
from offramp.metrics import find_metric

CostRange = tuple[float, float]

FAST, SLOW, WHOLE = (0.0, 0.5), (0.5, 1.0), (0.0, 1.0)
RANGES: dict[str, CostRange] = {"fast": FAST, "slow": SLOW, "whole": WHOLE}


def area(curve: Curve, cost_range: CostRange = WHOLE) -> float:
    """Mean score of a curve over a range of costs: the area under it, divided by the range's width.

    The curve is the raw threshold sweep, not its Pareto hull, joined by straight lines in order of cost. A point
    between two thresholds is what mixing them gives. The free answer is a point too: cost 0 with the curve's
    `floor`, the score of the commonest answer. A method without cheap points is therefore charged the line from
    its cheapest point down to the floor, and stays comparable with the others. Beyond its most expensive point
    the curve is flat. A cascade that recomputes reaches costs above 1; a range that ends at 1 excludes them.

    Args:
        curve: of `speed_accuracy`.
        cost_range: lowest and highest cost; `ConfigError` unless 0 <= lowest < highest.
    """
    costs = np.concatenate([[0.0], floats(curve.sweep, "cost")])
    scores = np.concatenate([[curve.floor], floats(curve.sweep, "score")])
    return float(mean_heights(costs[None], scores[None], cost_range)[0])


def area_statistic(
    trace: Trace,
    criterion: str | Criterion,
    *,
    metric: str = "accuracy",
    temperatures: Sequence[float] | None = None,
    points: int = 200,
    ranges: Mapping[str, CostRange] = RANGES,
) -> Statistic:
    """Areas of the curve that `speed_accuracy` makes, as a statistic: one column per cost range.

    The thresholds and the commonest answer come from the original data. Costs, scores and the floor are computed
    in every resample.
    """
    find_metric(metric, trace.kind)
    exits = sweep_thresholds(trace, criterion, temperatures, points).exits
    constant = np.full((len(trace), 1), commonest_answer(trace))
    answers = np.concatenate([constant, predictions_at(trace, exits)], axis=1)
    labels, cost = trace.require_labels(), cost_statistic(trace, exits, [""] * exits.shape[1])

    def values(weights: Weights) -> NDArray[np.float64]:
        scores = weighted_score(metric, labels, answers, weights)
        costs = np.concatenate([np.zeros((len(weights), 1)), cost.values(weights)], axis=1)
        return np.stack([mean_heights(costs, scores, limits) for limits in ranges.values()], axis=1)

    return Statistic(tuple(ranges), len(trace), trace.fingerprint, values)


def mean_heights(
    costs: NDArray[np.float64], scores: NDArray[np.float64], cost_range: CostRange
) -> NDArray[np.float64]:
    """Mean heights `(curves,)` of piecewise-linear curves over a range of costs.

    Args:
        costs, scores: `(curves, points)`; one of the costs is 0.
        cost_range: as for `area`.
    """
    low, high = cost_range
    if not 0 <= low < high < np.inf:
        raise ConfigError(f"expected a cost range with 0 <= lowest < highest, got {low} to {high}")
    order = np.argsort(costs, axis=1, kind="stable")
    x, y = np.take_along_axis(costs, order, axis=1), np.take_along_axis(scores, order, axis=1)
    x = np.concatenate([x, np.maximum(x[:, -1:], high)], axis=1)  # flat beyond the most expensive point
    y = np.concatenate([y, y[:, -1:]], axis=1)
    width = np.diff(x)
    slope = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
    left, right = np.clip(x[:, :-1], low, high), np.clip(x[:, 1:], low, high)
    middle = y[:, :-1] + slope * ((left + right) / 2 - x[:, :-1])
    return ((right - left) * middle).sum(axis=1) / (high - low)
