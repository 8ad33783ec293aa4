"""Several methods on the same data: which is better, and whether the difference is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError, unknown_name
from offramp._core.trace import Trace
from offramp.criteria import Criterion
from offramp.evaluation.areas import area_statistic
from offramp.evaluation.arrow_tables import from_rows
from offramp.evaluation.bootstrap import Models, Statistic, Weights, percentile_band, replicates
from offramp.evaluation.curves import Curve, speed_accuracy
from offramp.evaluation.operating_points import exit_statistic
from offramp.evaluation.sanity_checks.checks import refuse_unlike

if TYPE_CHECKING:
    import pyarrow as pa

Rule = str | Criterion


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
    _check(groups, base)
    measured, curves = {}, {}
    for name, group in groups.items():
        rule = criterion[name] if isinstance(criterion, Mapping) else criterion
        rules = [rule] * len(group) if isinstance(rule, str | Criterion) else rule
        models = [_everything(trace, rule, metric, points) for trace, rule in zip(group, rules, strict=True)]
        exact = np.mean([model.exact() for model in models], axis=0)
        drawn = replicates(models, resamples=resamples, seed=seed, over=over)
        measured[name] = _Measured(models[0].names, exact, drawn)
        # A single model has a bootstrap band; for several, figures show the range over the models.
        band = resamples if len(group) == 1 else 0
        curves[name] = [
            speed_accuracy(trace, rule, metric=metric, points=points, resamples=band, seed=seed)
            for trace, rule in zip(group, rules, strict=True)
        ]
    replicated = {name: method.drawn for name, method in measured.items()}
    return Comparison(base, metric, _scores(measured, base), _winners(measured), curves, replicated)


def _check(groups: Mapping[str, Sequence[Trace]], baseline: str) -> None:
    """Raise where the methods cannot be compared."""
    refuse_unlike({f"{name} {i}": trace for name, group in groups.items() for i, trace in enumerate(group)})
    if baseline not in groups:
        raise ConfigError(unknown_name("baseline", baseline, groups))
    for name, group in groups.items():
        if len({trace.exit_layers for trace in group}) != 1:
            raise DataError(
                f"the models of {name!r} have different exits: compare them under different names"
            )


@dataclass(frozen=True)
class _Measured:
    """One method's numbers, and replicates `(resamples, measures)` with the same draws for all methods."""

    measures: tuple[str, ...]
    exact: NDArray[np.float64]
    drawn: NDArray[np.float64]

    def at(self, measure: str) -> tuple[float, NDArray[np.float64]]:
        """Estimate and replicates `(resamples,)` of one measure."""
        column = self.measures.index(measure)
        return float(self.exact[column]), self.drawn[:, column]


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


def _lead(leader: _Measured, follower: _Measured, measure: str) -> tuple[float, float, float]:
    """The lead of one method over another, with the ends of its interval."""
    (a, drawn_a), (b, drawn_b) = leader.at(measure), follower.at(measure)
    low, high = percentile_band((drawn_a - drawn_b)[:, None])
    return a - b, float(low[0]), float(high[0])


def _scores(measured: Mapping[str, _Measured], baseline: str) -> pa.Table:
    rows = []
    base = measured[baseline]
    for name, method in measured.items():
        low, high = percentile_band(method.drawn)
        for measure, score, lowest, highest in zip(method.measures, method.exact, low, high, strict=True):
            comparable = name != baseline and measure in base.measures
            difference = _lead(method, base, measure) if comparable else (np.nan, np.nan, np.nan)
            rows.append((name, measure, score, lowest, highest, *difference))
    names = ("method", "place", "score", "low", "high", "difference", "difference_low", "difference_high")
    return from_rows(names, rows)


def _winners(measured: Mapping[str, _Measured]) -> pa.Table:
    rows = []
    for measure in dict.fromkeys(measure for method in measured.values() for measure in method.measures):
        ranked = sorted(
            (name for name, method in measured.items() if measure in method.measures),
            key=lambda name: measured[name].at(measure)[0],
            reverse=True,
        )
        if len(ranked) > 1:
            lead, low, high = _lead(measured[ranked[0]], measured[ranked[1]], measure)
            rows.append((measure, *ranked[:2], lead, low, high, low > 0))
    return from_rows(("place", "best", "second", "lead", "lead_low", "lead_high", "decided"), rows)
