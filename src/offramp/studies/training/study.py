"""What the records of a sweep say together: methods compared task by task, and on average over tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError
from offramp.evaluation.areas import FAST, SLOW, area_statistic
from offramp.evaluation.arrow_tables import from_rows
from offramp.evaluation.bootstrap import Statistic, Weights, percentile_band, replicates
from offramp.evaluation.compare import Comparison, compare
from offramp.evaluation.operating_points import exit_statistic
from offramp.evaluation.sanity_checks.checks import trace_doubts
from offramp.evaluation.sanity_checks.doubts import tally
from offramp.studies.grid import missing_trials
from offramp.studies.names import short
from offramp.studies.training.plan import TrainingSweep, TrainingTrial
from offramp.studies.training.results import (
    Group,
    ModelSetting,
    Result,
    best_rates,
    by_rate,
    group_results,
    load_results,
    rank,
)

if TYPE_CHECKING:
    import pyarrow as pa

Drawn = tuple[NDArray[np.float64], NDArray[np.float64]]  # exact (measures,), replicates (resamples, measures)

# Individual classifiers against Early-Exit's, in points, averaged over tasks and exits (SWEET, Rotem 2023).
EARLY_EXIT = "joint"
CLAIMS = {"multi_model": 2.3, "sweet": 1.1}
MEASURES = ("exits", "fast", "slow")  # mean over the single exits; areas of the curve at fast and slow speeds
DIFFERENCES = ("backbone", "where", "train_size", "method", "measure", "difference", "low", "high", "seeds")
RATES = ("backbone", "method", "learning_rate", "score", "models", "best", "exit_layers", "scores")


@dataclass(frozen=True)
class MethodStudy:
    """Methods compared over tasks.

    Attributes:
        groups: results by place and method.
        comparisons: by place; intervals are over seeds and examples.
        differences: to the baseline, by place and averaged over tasks: columns `DIFFERENCES`, in units of the
            metric; `tasks` is a task, or "mean of N tasks". A place without the baseline has none.
        rates: scores by learning rate, where several were tried: columns `RATES`.
        left_out: sentences about results that could not be compared.
        doubts: about the models that are compared, each told once.
    """

    groups: dict[ModelSetting, Group]
    comparisons: dict[ModelSetting, Comparison]
    differences: pa.Table
    rates: pa.Table
    left_out: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """All methods, the baseline first."""
        return methods_of(self.groups)

    @property
    def claims(self) -> dict[str, float]:
        """What the paper claims of the methods that differences are told for: it is about Early-Exit's."""
        return {m: CLAIMS[m] for m in self.others if m in CLAIMS} if self.methods[:1] == [EARLY_EXIT] else {}

    @property
    def compared(self) -> list[Result]:
        """All models that are compared."""
        return [one for group in self.groups.values() for ones in group.values() for one in ones]

    @property
    def others(self) -> list[str]:
        """The methods that differences are told for, in order."""
        return list(dict.fromkeys(self.differences["method"].to_pylist()))


def study(results: Sequence[Result], *, resamples: int = 1000) -> MethodStudy:
    """Compare the methods of a sweep.

    Args:
        results: of `load_results`.
        resamples: of the bootstrap over examples and seeds.

    Returns:
        The study; where a method was tried with several learning rates, its best one is compared.

    Source: SWEET (Rotem et al. 2023), its comparison of individual classifiers and of curves.
    """
    best = best_rates(results)
    kept = [one for one in results if one.learning_rate == best[one.backbone, one.method]]
    groups, left_out = group_results(kept)
    if len(kept) < len(results):
        left_out.append(
            f"{len(results) - len(kept)} models with other learning rates than their method's best, which was "
            "chosen on the data it is shown on"
        )
    base = next(iter(methods_of(groups)), "")
    if bare := [place for place, group in groups.items() if base not in group]:
        places = "; ".join(f"{place.backbone}, {place.task}" for place in bare)
        left_out.append(f"differences at places without {base}: {places}")
    comparisons = {place: _compare(place, group, resamples) for place, group in groups.items()}
    differences = difference_table(groups, resamples)
    models = [one for group in groups.values() for ones in group.values() for one in ones]
    doubts = tally([(one.cell, trace_doubts(one.trace)) for one in models], "models")
    return MethodStudy(groups, comparisons, differences, rate_table(results), tuple(left_out), tuple(doubts))


def _compare(place: ModelSetting, group: Group, resamples: int) -> Comparison:
    return compare(
        {method: [one.trace for one in ones] for method, ones in group.items()},
        {method: [one.rule for one in ones] for method, ones in group.items()},
        metric=next(iter(group.values()))[0].metric,
        resamples=resamples,
        seed=place.seed,
        over="nested",
    )


def methods_of(groups: Mapping[ModelSetting, Group]) -> list[str]:
    """All methods in the order in which they are told; the first one is the baseline everywhere."""
    firsts = [ones[0] for group in groups.values() for ones in group.values()]
    return list(dict.fromkeys(one.method for one in sorted(firsts, key=rank)))


def difference_table(groups: Mapping[ModelSetting, Group], resamples: int = 1000) -> pa.Table:
    """Differences to the baseline at every place, and averaged over the tasks of an encoder.

    An average is taken over the tasks that have the method; where tasks were run with several training sizes,
    for each size by itself. Intervals are over seeds and examples, the tasks being fixed.

    Returns:
        Rows with the columns `DIFFERENCES`; `where` is a task, or "mean of N tasks".
    """
    base, *others = methods_of(groups) or [""]
    paired = {place: group for place, group in groups.items() if base in group}
    drawn = {
        (place, m): _drawn(place, ones, resamples) for place, g in paired.items() for m, ones in g.items()
    }
    rows = []
    for places in (*([place] for place in paired), *_averaged(paired)):
        for method in others:
            having = [place for place in places if method in groups[place]]
            if having and (len(having) > 1 or having == places):
                gaps = [_gap(drawn[p, method], drawn[p, base]) for p in having]
                seeds = min(len(groups[place][method]) for place in having)
                rows += [(*row, seeds) for row in _rows(having, method, gaps)]
    return from_rows(DIFFERENCES, rows)


def _gap(one: Drawn, base: Drawn) -> Drawn:
    return one[0] - base[0], one[1] - base[1]


def _rows(places: Sequence[ModelSetting], method: str, gaps: Sequence[Drawn]) -> Iterator[tuple[object, ...]]:
    """A row for each measure, without the number of seeds: the mean of the gaps over the places."""
    exact = np.mean([gap[0] for gap in gaps], axis=0)
    low, high = percentile_band(np.mean([gap[1] for gap in gaps], axis=0))
    where = places[0].task if len(places) == 1 else f"mean of {len(places)} tasks"
    sizes = {place.train_size for place in places}
    told = (places[0].backbone, where, sizes.pop() if len(sizes) == 1 else None, method)
    for measure, *numbers in zip(MEASURES, exact, low, high, strict=True):
        yield (*told, measure, *map(float, numbers))


def _averaged(groups: Mapping[ModelSetting, Group]) -> list[list[ModelSetting]]:
    """Places whose differences are averaged: those of an encoder, or of an encoder and a size."""
    tasks = [(place.backbone, place.task) for place in groups]
    sized = len(set(tasks)) < len(tasks)
    found: dict[tuple[str, int | None], list[ModelSetting]] = {}
    for place in groups:
        found.setdefault((place.backbone, place.train_size if sized else None), []).append(place)
    return [places for places in found.values() if len(places) > 1]


def _drawn(place: ModelSetting, ones: Sequence[Result], resamples: int) -> Drawn:
    """The measures of a method at a place, with nested bootstrap replicates, paired over methods by the seed."""
    models = [measure_statistic(one) for one in ones]
    exact = np.mean([model.exact() for model in models], axis=0)
    return exact, replicates(models, resamples=resamples, seed=place.seed, over="nested")


def measure_statistic(one: Result) -> Statistic:
    """`MEASURES` of one model as a statistic."""
    exits = exit_statistic(one.trace, one.metric)
    ranges = {"fast": FAST, "slow": SLOW}
    areas = area_statistic(one.trace, one.rule, metric=one.metric, ranges=ranges)

    def values(weights: Weights) -> NDArray[np.float64]:
        return np.column_stack([exits.values(weights).mean(axis=1), areas.values(weights)])

    return Statistic(MEASURES, len(one.trace), one.trace.fingerprint, values)


def rate_table(results: Sequence[Result]) -> pa.Table:
    """Mean scores over tasks and seeds by learning rate: columns `RATES`, for methods with several."""
    best, rows = best_rates(results), []
    for key, rates in by_rate(results).items():
        tried = [rate for rate in rates if rate is not None]
        for rate in sorted(tried) if len(tried) > 1 else ():
            ones = rates[rate]
            exits = np.mean([one.scores for one in ones], axis=0).tolist()
            told = (float(np.mean(exits)), len(ones), rate == best[key], ones[0].trace.exit_layers, exits)
            rows.append((*key, rate, *told))
    return from_rows(RATES, rows)


def tuned_rates(folder: str | Path) -> dict[tuple[str, str], float]:
    """The best learning rate by encoder and method, from a sweep over learning rates.

    Raises:
        ConfigError: no such sweep, one without several rates, or one that is not finished.
    """
    try:
        rows = rate_table(load_results(folder)).to_pylist()
    except DataError as error:
        raise ConfigError(
            f"learning rates are to be taken from {folder}, but: {error}; run that sweep first, or give learning_rate"
        ) from error
    if missing := missing_trials(folder):
        raise ConfigError(f"{missing[0]} has no record yet in {folder}: finish that sweep first")
    models: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        models.setdefault((row["backbone"], row["method"]), set()).add(row["models"])
    unfinished = [
        f"{method} on {backbone}" for (backbone, method), counts in models.items() if len(counts) > 1
    ]
    if unfinished:
        raise ConfigError(
            f"not every learning rate of {unfinished[0]} has been tried on every task and seed in {folder}: finish "
            "that sweep first"
        )
    return {(row["backbone"], row["method"]): row["learning_rate"] for row in rows if row["best"]}


def with_tuned_rates(sweep: TrainingSweep) -> TrainingSweep:
    """The sweep with the learning rates of the one that it is tuned on; as it is where it is tuned on none.

    Raises:
        ConfigError: rates that are missing, or a task that was tuned on: it would flatter the methods.
    """
    if sweep.tuned_on is None:
        return sweep
    rates, tuned = tuned_rates(sweep.tuned_on), {one.task for one in load_results(sweep.tuned_on)}

    def rated(cell: TrainingTrial) -> TrainingTrial:
        key = (short(cell.backbone), cell.method.name)
        if key not in rates:
            raise ConfigError(
                f"{sweep.tuned_on} has no learning rates for {cell.method.name} on {key[0]}: add them to that sweep"
            )
        if short(cell.task) in tuned:
            raise ConfigError(
                f"{cell.task} was used to choose learning rates in {sweep.tuned_on}: leave it out here"
            )
        return replace(cell, learning_rate=rates[key])

    return replace(sweep, trials=tuple(rated(cell) for cell in sweep.trials))
