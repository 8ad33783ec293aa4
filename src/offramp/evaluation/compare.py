"""Several methods on the same data: which is better, and whether the difference is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError, unknown_name
from offramp._core.trace import Trace
from offramp.criteria import Criterion
from offramp.evaluation.arrow_tables import from_rows
from offramp.evaluation.bootstrap import Models, Statistic, Weights, percentile_band, replicates
from offramp.evaluation.curves import Curve, area_statistic, speed_accuracy
from offramp.evaluation.operating_points import exit_statistic
from offramp.evaluation.sanity_checks.checks import refuse_unlike

if TYPE_CHECKING:
    import pyarrow as pa

Rule = str | Criterion
# An estimate; replicates `(resamples,)`, with the same draws for all.
Measured = tuple[float, NDArray[np.float64]]

DIFFERENCE = ("difference", "difference_low", "difference_high")
SCORES = ("method", "place", "score", "low", "high", *DIFFERENCE)
WINNERS = ("place", "best", "second", "lead", "lead_low", "lead_high", "decided")


@dataclass(frozen=True)
class Comparison:
    """Several methods compared over the same examples.

    Attributes:
        baseline: the method that differences are taken against.
        metric: what the scores are.
        scores: one row per method and measure. A measure is an exit (`layer 4`), the mean over all exits
            (`mean of layers 1, 4`) or a cost range of the curve (`fast`, `slow`, `whole`). Columns: `method`,
            `place` (the measure), `score`, `low`, `high`, and the paired difference to the baseline `difference`,
            `difference_low`, `difference_high`; NaN for the baseline, and where it lacks the exit.
        winners: one row per measure that two methods share: `place`, `best`, `second`, `lead`, `lead_low`,
            `lead_high`, and `decided`: whether the interval of the lead excludes zero. The pair is chosen
            after seeing the scores, so among many methods the lead is flattering.
        curves: one per model, by method.
        drawn: replicates `(resamples, measures)` by method, paired; measures in the order of `scores`.
    """

    baseline: str
    metric: str
    scores: pa.Table
    winners: pa.Table
    curves: dict[str, list[Curve]]
    drawn: dict[str, NDArray[np.float64]]


def compare(
    traces: Mapping[str, Trace | Sequence[Trace]],
    criterion: Rule | Mapping[str, Rule | Sequence[Rule]] = "confidence",
    *,
    baseline: str | None = None,
    metric: str = "accuracy",
    points: int = 200,
    resamples: int = 1000,
    seed: int = 0,
    over: Models = "averaged",
) -> Comparison:
    """Compare methods by the score of each exit and the areas of their curves, with 95 % paired-bootstrap intervals.

    Args:
        traces: by method, the trace of its model, or one per model (seed), all over the same examples in the
            same order; scaled by temperature (`Trace.scaled`) where temperatures were fitted.
        criterion: the exit rule, for all methods or by method. A method may have one rule for all of its models, or one
            for each, with its own fitted parameters.
        baseline: method to take differences against; None takes the first.
        metric: a key of `offramp.metrics.METRICS`.
        points: the most thresholds tried.
        resamples, seed: of the bootstrap.
        over: whether intervals are about these models or about models trained likewise; see `replicates`.

    Raises:
        DataError: the traces are of different data, or have no labels.
        ConfigError: the baseline is not among the methods.

    Source: SWEET (Rotem et al. 2023), tables 1 and 2 and the speed-accuracy figures.
    """
    groups = {name: [given] if isinstance(given, Trace) else list(given) for name, given in traces.items()}
    base = next(iter(groups), "") if baseline is None else baseline
    refuse_unlike({f"{name} {i}": trace for name, group in groups.items() for i, trace in enumerate(group)})
    if base not in groups:
        raise ConfigError(unknown_name("baseline", base, groups))
    measured, drawn, curves = {}, {}, {}
    for name, group in groups.items():
        if len({trace.exit_layers for trace in group}) != 1:
            raise DataError(
                f"the models of {name!r} have different exits: compare them under different names"
            )
        rule = criterion[name] if isinstance(criterion, Mapping) else criterion
        rules = [rule] * len(group) if isinstance(rule, str | Criterion) else rule
        models = [_everything(trace, rule, metric, points) for trace, rule in zip(group, rules, strict=True)]
        exact = np.mean([model.exact() for model in models], axis=0)
        drawn[name] = replicates(models, resamples=resamples, seed=seed, over=over)
        measured[name] = dict(
            zip(models[0].names, zip(exact.tolist(), drawn[name].T, strict=True), strict=True)
        )
        # A single model has a bootstrap band; for several, figures show the range over the models.
        band = resamples if len(group) == 1 else 0
        curves[name] = [
            speed_accuracy(trace, rule, metric=metric, points=points, resamples=band, seed=seed)
            for trace, rule in zip(group, rules, strict=True)
        ]
    return Comparison(base, metric, _scores(measured, base), _winners(measured), curves, drawn)


def _everything(trace: Trace, criterion: str | Criterion, metric: str, points: int) -> Statistic:
    """The score of every exit, their mean, and every area, as one statistic."""
    exits = exit_statistic(trace, metric)
    areas = area_statistic(trace, criterion, metric=metric, points=points)

    def values(weights: Weights) -> NDArray[np.float64]:
        scores = exits.values(weights)
        return np.concatenate([scores, scores.mean(axis=1, keepdims=True), areas.values(weights)], axis=1)

    # The name holds the layers, so that means over different exits are never compared.
    mean = f"mean of layers {', '.join(map(str, trace.exit_layers))}"
    return Statistic((*exits.names, mean, *areas.names), len(trace), trace.fingerprint, values)


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = percentile_band(drawn[:, None])
    return float(low[0]), float(high[0])


def _scores(measured: Mapping[str, Mapping[str, Measured]], baseline: str) -> pa.Table:
    rows, base = [], measured[baseline]
    for name, measures in measured.items():
        for measure, (score, drawn) in measures.items():
            difference = (np.nan, np.nan, np.nan)
            if name != baseline and measure in base:
                base_score, base_drawn = base[measure]
                difference = (score - base_score, *_interval(drawn - base_drawn))
            rows.append((name, measure, score, *_interval(drawn), *difference))
    return from_rows(SCORES, rows)


def _winners(measured: Mapping[str, Mapping[str, Measured]]) -> pa.Table:
    rows = []
    for measure in dict.fromkeys(measure for measures in measured.values() for measure in measures):
        methods = [(name, *measures[measure]) for name, measures in measured.items() if measure in measures]
        methods.sort(key=itemgetter(1), reverse=True)
        if len(methods) > 1:
            (best, score, drawn), (second, lower, lower_drawn) = methods[:2]
            low, high = _interval(drawn - lower_drawn)
            rows.append((measure, best, second, score - lower, low, high, low > 0))
    return from_rows(WINNERS, rows)
