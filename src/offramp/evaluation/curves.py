"""Speed-accuracy curves (one run of the model, every threshold), and their areas over ranges of cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import seed_number, whole
from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.trace import Trace
from offramp.criteria import Criterion
from offramp.evaluation.arrow_tables import (
    floats,
    in_front,
    require_columns,
    rows_where,
    stack,
    table,
    to_pandas,
)
from offramp.evaluation.bootstrap import Statistic, Weights, percentile_band, replicates
from offramp.evaluation.conventions import layer_speedup
from offramp.evaluation.operating_points import (
    commonest_answer,
    cost_statistic,
    predictions_at,
    score_statistic,
    static_exits,
    sweep_thresholds,
)
from offramp.evaluation.weighted import weighted_score
from offramp.metrics import find_metric, score

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.axes import Axes

CostRange = tuple[float, float]

FAST, SLOW, WHOLE = (0.0, 0.5), (0.5, 1.0), (0.0, 1.0)
RANGES: dict[str, CostRange] = {"fast": FAST, "slow": SLOW, "whole": WHOLE}
COSTS = ("cost", "depth", "layer_speedup")
COLUMNS = ("point", "threshold", *COSTS, "score", "low", "high", "shares", "time_speedup")
JOINER = "\u2060"  # has no width: before a name that begins with _, which a legend would leave out
FRONT = ("method", "model", "criterion", "metric", "floor")  # the first four identify a curve


@dataclass(frozen=True)
class Curve:
    """Speed and accuracy of a model under an exit rule, over the rule's thresholds.

    Attributes:
        table: one row per operating point, with the columns
            `point` ("sweep": a threshold; "static": always the same exit), `threshold` (NaN for static
            points), `cost` (mean FLOPs spent / mean FLOPs of the full model), `depth` (mean exit layer),
            `layer_speedup` (L / depth), `score`, `low` and `high` (bootstrap interval of the score, NaN without
            resamples), `shares` (list: share of examples that leave at each exit) and `time_speedup`
            (NaN where not measured). Sweep rows come first, from the most permissive threshold to the strictest.
        criterion: the rule's name.
        metric: what `score` is.
        floor: the score of always giving the commonest answer, at no cost; areas start there.
    """

    table: pa.Table
    criterion: str
    metric: str
    floor: float

    @property
    def sweep(self) -> pa.Table:
        """The rows of the threshold sweep."""
        return rows_where(self.table, "point", "sweep")

    @property
    def static(self) -> pa.Table:
        """The rows of the single exits."""
        return rows_where(self.table, "point", "static")

    def with_times(self, speedups: Mapping[float, float]) -> Curve:
        """The curve with measured `time_speedup` by threshold, each at the nearest threshold of the sweep."""
        import pyarrow as pa

        thresholds = floats(self.table, "threshold")
        noted = np.full(len(thresholds), np.nan)
        for threshold, speedup in speedups.items():
            # In halves: the thresholds of an unbounded rule may differ by more than the largest float.
            noted[np.nanargmin(np.abs(thresholds / 2 - threshold / 2))] = speedup
        column = self.table.column_names.index("time_speedup")
        return replace(self, table=self.table.set_column(column, "time_speedup", pa.array(noted)))

    def plot(self, ax: Axes | None = None, label: str | None = None) -> Axes:
        """Draw the sweep as a line, the intervals as a band and the single exits as points; needs matplotlib.

        Args:
            ax: where to draw; None makes a new figure.
            label: name of the line; None takes the criterion's.
        """
        if ax is None:
            try:
                from matplotlib import pyplot  # its figures are those that notebooks show
            except ModuleNotFoundError as error:
                raise MissingExtraError("matplotlib", "torch") from error
            ax = pyplot.subplots(figsize=(6, 4), layout="constrained")[1]
        axes: Axes = ax
        sweep, static = self.sweep, self.static
        costs, name = floats(sweep, "cost"), label or self.criterion
        (line,) = axes.plot(costs, floats(sweep, "score"), label=JOINER * name.startswith("_") + name)
        color = line.get_color()
        axes.fill_between(costs, floats(sweep, "low"), floats(sweep, "high"), color=color, alpha=0.15, lw=0)
        axes.plot(floats(static, "cost"), floats(static, "score"), "o", color=color, mfc="white")
        axes.set_xlabel("cost (share of the full model's FLOPs)")
        axes.set_ylabel(self.metric, parse_math=False)
        for text in axes.legend().get_texts():  # names come from outside: a $ is a dollar
            text.set_parse_math(False)
            text.set_text(text.get_text().removeprefix(JOINER))
        return axes

    def to_pandas(self) -> pd.DataFrame:
        """The operating points as a data frame; needs pandas."""
        return to_pandas(self.table)


def speed_accuracy(
    trace: Trace,
    criterion: str | Criterion,
    *,
    metric: str = "accuracy",
    temperatures: Sequence[float] | None = None,
    points: int = 200,
    resamples: int = 0,
    seed: int = 0,
) -> Curve:
    """Score against cost over the thresholds of an exit rule.

    Args:
        trace: run of the model over labelled evaluation data.
        criterion: name of the rule, or a rule with options; its threshold is swept.
        metric: a key of `offramp.metrics.METRICS`.
        temperatures: one per exit, fitted on calibration data; None means 1.
        points: largest number of thresholds; fewer where fewer give distinct outcomes.
        resamples, seed: of the bootstrap for `low` and `high` (95 % at each threshold); no resamples leave them NaN.

    Raises:
        DataError: the trace has no labels or no examples.
        ConfigError: the metric does not fit the task.
        CriterionError: the rule is unknown, does not fit, or has no threshold.

    Source: SWEET (Rotem et al. 2023) and Right Tool (Schwartz et al. 2020), their speed-accuracy figures.
    """
    resamples, seed = whole("resamples", resamples), seed_number(seed)
    sweep = sweep_thresholds(trace, criterion, temperatures, points)
    exits = np.concatenate([sweep.exits, static_exits(trace)], axis=1)
    undefined, unnamed = np.full(exits.shape[1], np.nan), [""] * exits.shape[1]
    depth = np.asarray(trace.exit_layers, dtype=np.float64)[exits].mean(axis=0)
    scored = score_statistic(trace, exits, metric, unnamed)
    low, high = undefined, undefined
    if resamples:
        low, high = percentile_band(replicates([scored], resamples=resamples, seed=seed))
    columns = {
        "point": ["sweep"] * len(sweep.thresholds) + ["static"] * trace.exits,
        "threshold": np.concatenate([sweep.thresholds, np.full(trace.exits, np.nan)]),
        "cost": cost_statistic(trace, exits, unnamed).exact(),
        "depth": depth,
        "layer_speedup": layer_speedup(trace.depth, depth),
        "score": scored.exact(),
        "low": low,
        "high": high,
        "shares": np.stack([(exits == exit).mean(axis=0) for exit in range(trace.exits)], axis=1).tolist(),
        "time_speedup": undefined,
    }
    labels = trace.require_labels()
    floor = score(metric, labels, np.full(len(trace), commonest_answer(trace)))
    return Curve(table(columns), sweep.criterion, metric, floor)


def stack_curves(curves: Mapping[str, Curve | Sequence[Curve]]) -> pa.Table:
    """Curves of several methods as one table.

    Args:
        curves: a curve, or one per model (seed), by name of the method.

    Returns:
        The rows of all curves, with the columns `FRONT` before those of `Curve.table`; `model` counts from 0.
    """
    tables = []
    for method, group in curves.items():
        for model, curve in enumerate([group] if isinstance(group, Curve) else group):
            values = (method, model, curve.criterion, curve.metric, curve.floor)
            tables.append(in_front(curve.table, dict(zip(FRONT, values, strict=True))))
    return stack(tables)


def unstack_curves(stacked: pa.Table) -> dict[str, list[Curve]]:
    """The inverse of `stack_curves`: the curves of every method, one per model; `DataError` without the columns."""
    require_columns(stacked, (*FRONT, *COLUMNS), "a table of curves")
    curves: dict[str, list[Curve]] = {}
    keys = zip(*(stacked[name].to_pylist() for name in FRONT), strict=True)
    for method, model, criterion, metric, floor in dict.fromkeys(keys):
        rows = stacked
        for name, value in zip(FRONT, (method, model, criterion, metric), strict=False):
            rows = rows_where(rows, name, value)
        curves.setdefault(method, []).append(Curve(rows.select(COLUMNS), criterion, metric, floor))
    return curves


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
    """Mean heights `(curves,)` of piecewise-linear curves `(curves, points)`, one of whose costs is 0."""
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
