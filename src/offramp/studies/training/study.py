"""What the records of a sweep say together: methods compared task by task, and on average over tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError
from offramp.evaluation.areas import FAST, SLOW, area_statistic
from offramp.evaluation.bootstrap import Statistic, Weights, percentile_band, replicates
from offramp.evaluation.compare import Comparison, compare
from offramp.evaluation.operating_points import exit_statistic
from offramp.evaluation.sanity_checks.checks import trace_doubts
from offramp.evaluation.sanity_checks.doubts import tally
from offramp.studies.grid import missing_trials
from offramp.studies.names import short
from offramp.studies.training.plan import TrainingSweep
from offramp.studies.training.results import (
    METHOD,
    Group,
    ModelSetting,
    Result,
    group_results,
    load_results,
    rank,
    rate_frame,
)
from offramp.studies.training.trial import TrainingTrial
from offramp.training.strategies import STRATEGIES

MEASURES = ("exits", "fast", "slow")  # mean over the single exits; areas of the curve at fast and slow speeds
DIFFERENCES = ("backbone", "where", "train_size", "method", "seeds", "measure", "difference", "low", "high")


@dataclass(frozen=True)
class MethodStudy:
    """Methods compared over tasks.

    Attributes:
        groups: results by setting and method.
        comparisons: by setting; intervals are over seeds and examples.
        differences: to the baseline, by setting and averaged over tasks: columns `DIFFERENCES`, in units of the
            metric. A setting without the baseline has none.
        rates: scores by learning rate, where several were tried: columns of `rate_frame`.
        left_out: sentences about results that could not be compared.
        doubts: about the models that are compared, each reported once.
    """

    groups: dict[ModelSetting, Group]
    comparisons: dict[ModelSetting, Comparison]
    differences: pd.DataFrame
    rates: pd.DataFrame
    left_out: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """All methods, the baseline first."""
        return methods_of(self.groups)

    @property
    def others(self) -> list[str]:
        """The methods that are compared with the baseline, in order."""
        return list(dict.fromkeys(self.differences["method"]))

    @property
    def claims(self) -> dict[str, float]:
        """The paper's differences in points, by method; none unless the baseline is the paper's."""
        if not (self.methods and self.methods[0] in STRATEGIES and STRATEGIES[self.methods[0]].is_baseline):
            return {}
        claims = {m: STRATEGIES[m].claim for m in self.others if m in STRATEGIES}
        return {method: claim for method, claim in claims.items() if claim is not None}

    @property
    def compared(self) -> list[Result]:
        """All models that are compared."""
        return [result for group in self.groups.values() for results in group.values() for result in results]


def study(results: Sequence[Result], *, resamples: int = 1000) -> MethodStudy:
    """Compare the methods of a sweep.

    Args:
        results: of `load_results`.
        resamples: of the bootstrap over examples and seeds.

    Returns:
        The study; a method that was tried with several learning rates takes part with its best one.

    Source: SWEET (Rotem et al. 2023), its comparison of individual classifiers and of curves.
    """
    rates = rate_frame(results)
    kept = [result for models in rates.query("best")["results"] for result in models]
    groups, left_out = group_results(kept)
    if len(kept) < len(results):
        left_out.append(
            f"{len(results) - len(kept)} models with other learning rates than their method's best, which was "
            "chosen on the data it is shown on"
        )
    base = next(iter(methods_of(groups)), "")
    if bare := [setting for setting, group in groups.items() if base not in group]:
        names = "; ".join(f"{setting.backbone}, {setting.task}" for setting in bare)
        left_out.append(f"differences at places without {base}: {names}")
    comparisons = {setting: _compare(setting, group, resamples) for setting, group in groups.items()}
    differences = difference_table(groups, resamples)
    compared = MethodStudy(groups, comparisons, differences, tried_rates(rates), tuple(left_out))
    doubts = tally([(result.trial, trace_doubts(result.trace)) for result in compared.compared], "models")
    return replace(compared, doubts=tuple(doubts))


def _compare(setting: ModelSetting, group: Group, resamples: int) -> Comparison:
    return compare(
        {method: [result.trace for result in results] for method, results in group.items()},
        {method: [result.rule for result in results] for method, results in group.items()},
        metric=next(iter(group.values()))[0].metric,
        resamples=resamples,
        seed=setting.seed,
        over="nested",
    )


def methods_of(groups: Mapping[ModelSetting, Group]) -> list[str]:
    """All methods in the order of tables; the first one is the baseline everywhere."""
    firsts = [results[0] for group in groups.values() for results in group.values()]
    return list(dict.fromkeys(result.method for result in sorted(firsts, key=rank)))


def difference_table(groups: Mapping[ModelSetting, Group], resamples: int = 1000) -> pd.DataFrame:
    """Differences to the baseline in every setting, and averaged over the tasks of an encoder.

    An average is over the tasks that have the method. Where a task has several training sizes, each size has its own
    average. Intervals are over seeds and examples, with the tasks fixed.

    Returns:
        Rows with the columns `DIFFERENCES`; `where` is a task, or "mean of N tasks".
    """
    base, *others = methods_of(groups) or [""]
    paired = {setting: group for setting, group in groups.items() if base in group}
    gaps = _gaps(paired, base, others, resamples)
    rows = [row for k in range(len(gaps)) for row in _rows(gaps.iloc[[k]])]
    sized = max(Counter((setting.backbone, setting.task) for setting in paired).values(), default=0) > 1
    averaged = ["backbone", "train_size"] if sized else ["backbone"]
    for _, group in gaps.groupby(averaged, sort=False, dropna=False):
        for method in others:
            tasks = group[group["method"] == method]
            rows += _rows(tasks) if len(tasks) > 1 else []
    return pd.DataFrame(rows, columns=list(DIFFERENCES)).astype({"train_size": "Int64"})


def _gaps(
    groups: Mapping[ModelSetting, Group], base: str, others: Sequence[str], resamples: int
) -> pd.DataFrame:
    """A row per setting and method: `MEASURES` less the baseline's, exact `(3,)` and drawn `(resamples, 3)`."""
    rows = []
    for setting, group in groups.items():
        exact, drawn = _measures(setting, group[base], resamples)
        for method in (method for method in others if method in group):
            own, own_drawn = _measures(setting, group[method], resamples)
            where = (setting.backbone, setting.task, setting.train_size)
            rows.append((*where, method, len(group[method]), own - exact, own_drawn - drawn))
    names = ("backbone", "task", "train_size", "method", "seeds", "exact", "drawn")
    return pd.DataFrame(rows, columns=list(names)).astype({"train_size": "Int64"})


def _rows(gaps: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """A row of `DIFFERENCES` for each measure: the mean of the gaps of one method over settings."""
    exact = np.mean(gaps["exact"].tolist(), axis=0)
    low, high = percentile_band(np.mean(gaps["drawn"].tolist(), axis=0))
    first = gaps.iloc[0]
    where = first["task"] if len(gaps) == 1 else f"mean of {len(gaps)} tasks"
    size = first["train_size"] if gaps["train_size"].nunique(dropna=False) == 1 else None
    for measure, *numbers in zip(MEASURES, exact, low, high, strict=True):
        yield first["backbone"], where, size, first["method"], gaps["seeds"].min(), measure, *numbers


def _measures(
    setting: ModelSetting, results: Sequence[Result], resamples: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The measures of a method in a setting, and nested bootstrap replicates, which the seed pairs over methods."""
    models = [measure_statistic(result) for result in results]
    exact = np.mean([model.exact() for model in models], axis=0)
    return exact, replicates(models, resamples=resamples, seed=setting.seed, over="nested")


def measure_statistic(result: Result) -> Statistic:
    """`MEASURES` of one model as a statistic."""
    exits = exit_statistic(result.trace, result.metric)
    ranges = {"fast": FAST, "slow": SLOW}
    areas = area_statistic(result.trace, result.rule, metric=result.metric, ranges=ranges)

    def values(weights: Weights) -> NDArray[np.float64]:
        return np.column_stack([exits.values(weights).mean(axis=1), areas.values(weights)])

    return Statistic(MEASURES, len(result.trace), result.trace.fingerprint, values)


def tried_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """The rows of `rate_frame` for methods with several learning rates, in rising order of the rate."""
    rates = rates.dropna(subset="learning_rate")
    methods = rates.groupby(METHOD, sort=False)
    several = methods["learning_rate"].transform("size") > 1
    return rates.assign(order=methods.ngroup())[several].sort_values(["order", "learning_rate"])


def tuned_rates(folder: str | Path) -> dict[tuple[str, str], float]:
    """The best learning rate by encoder and method, from a sweep over learning rates.

    Raises:
        ConfigError: no such sweep, one without several rates, or one that is not finished.
    """
    try:
        rates = tried_rates(rate_frame(load_results(folder)))
    except DataError as error:
        raise ConfigError(
            f"learning rates are to be taken from {folder}, but: {error}; run that sweep first, or give learning_rate"
        ) from error
    if missing := missing_trials(folder):
        raise ConfigError(f"{missing[0]} has no record yet in {folder}: finish that sweep first")
    counts = rates.groupby(METHOD, sort=False)["models"].nunique()
    for backbone, method in counts.index[counts > 1]:
        raise ConfigError(
            f"not every learning rate of {method} on {backbone} has been tried on every task and seed in {folder}: "
            "finish that sweep first"
        )
    return {(row.backbone, row.method): row.learning_rate for row in rates.query("best").itertuples()}


def with_tuned_rates(sweep: TrainingSweep) -> TrainingSweep:
    """The sweep with the best learning rates of the sweep that it is tuned on, if any.

    Raises:
        ConfigError: rates that are missing, or a task that was tuned on: it would flatter the methods.
    """
    if sweep.tuned_on is None:
        return sweep
    rates = tuned_rates(sweep.tuned_on)
    tasks = {result.setting.task for result in load_results(sweep.tuned_on)}

    def rated(trial: TrainingTrial) -> TrainingTrial:
        key = (short(trial.backbone), trial.method.name)
        if key not in rates:
            raise ConfigError(
                f"{sweep.tuned_on} has no learning rates for {key[1]} on {key[0]}: add them to that sweep"
            )
        if short(trial.task) in tasks:
            raise ConfigError(
                f"{trial.task} was used to choose learning rates in {sweep.tuned_on}: leave it out here"
            )
        return replace(trial, learning_rate=rates[key])

    return replace(sweep, trials=tuple(rated(trial) for trial in sweep.trials))
