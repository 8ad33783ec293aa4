"""What the records of a sweep say together: methods compared task by task, and on average over tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp._core import progress as display
from offramp.evaluation.bootstrap import percentile_band
from offramp.evaluation.compare import Comparison, compare
from offramp.evaluation.sanity_checks.checks import trace_doubts
from offramp.evaluation.sanity_checks.doubts import tally
from offramp.studies.training.results import (
    Group,
    ModelSetting,
    Result,
    bootstrap_seed,
    group_results,
    rank,
    rate_frame,
    tried_rates,
)
from offramp.training.strategies import STRATEGIES

Floats = NDArray[np.float64]

AREAS = ("fast", "slow")  # of the curve at fast and slow speeds
MEASURES = (
    "exits",
    *AREAS,
)  # the mean over the single exits, and the areas; then every exit, such as "layer 4"
GAPS = ["backbone", "task", "train_size", "method", "seeds", "measures", "exact", "drawn"]
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
        return [result for group in self.groups.values() for results in group.values() for result in results]


def study(results: Sequence[Result], *, resamples: int = 1000, progress: bool = False) -> MethodStudy:
    """Compare the methods of a sweep.

    A method that was tried with several learning rates takes part with its best one.

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
    comparisons = {}
    for setting, group in display.track([*groups.items()], "compare methods", show=progress):
        comparisons[setting] = compare(
            {method: [result.trace for result in results] for method, results in group.items()},
            {method: [result.rule for result in results] for method, results in group.items()},
            metric=next(iter(group.values()))[0].metric,
            resamples=resamples,
            seed=bootstrap_seed(setting.task),
            over="nested",
        )
    differences = difference_table(groups, comparisons)
    compared = MethodStudy(groups, comparisons, differences, tried_rates(rates), tuple(left_out))
    doubts = tally([(result.trial, trace_doubts(result.trace)) for result in compared.compared], "models")
    return replace(compared, doubts=tuple(doubts))


def methods_of(groups: Mapping[ModelSetting, Group]) -> list[str]:
    """All methods in the order of tables; the first one is the baseline everywhere."""
    firsts = [results[0] for group in groups.values() for results in group.values()]
    return list(dict.fromkeys(result.method for result in sorted(firsts, key=rank)))


def difference_table(
    groups: Mapping[ModelSetting, Group], comparisons: Mapping[ModelSetting, Comparison]
) -> pd.DataFrame:
    """Differences to the baseline in every setting, and averaged over the tasks of an encoder.

    An average is over the tasks that have the method. Where a task has several training sizes, each size has its own
    average. Intervals are over seeds and examples, with the tasks fixed.

    Returns:
        Rows with the columns `DIFFERENCES`; `where` is a task, or "mean of N tasks".
    """
    base, *others = methods_of(groups) or [""]
    paired = {setting: group for setting, group in groups.items() if base in group}
    differences = []
    for setting, group in paired.items():
        measures, exact, drawn = _measured(comparisons[setting], base, group)
        for method in (method for method in others if method in group):
            _, own, own_drawn = _measured(comparisons[setting], method, group)
            gap = (measures, own - exact, own_drawn - drawn)
            differences.append((*astuple(setting), method, len(group[method]), *gap))
    gaps = pd.DataFrame(differences, columns=GAPS).astype({"train_size": "Int64"})
    rows = [row for k in range(len(gaps)) for row in _rows(gaps.iloc[[k]])]
    sized = max(Counter((setting.backbone, setting.task) for setting in paired).values(), default=0) > 1
    averaged = ["backbone", "train_size"] if sized else ["backbone"]
    for _, group in gaps.groupby(averaged, sort=False, dropna=False):
        for method in others:
            tasks = group[group["method"] == method]
            rows += _rows(tasks) if len(tasks) > 1 else []
    return pd.DataFrame(rows, columns=list(DIFFERENCES)).astype({"train_size": "Int64"})


def _measured(comparison: Comparison, method: str, group: Group) -> tuple[tuple[str, ...], Floats, Floats]:
    """Measures of a method, exact `(measures,)` and drawn `(resamples, measures)`, paired over methods."""
    scores = {row["place"]: row["score"] for row in comparison.scores.to_pylist() if row["method"] == method}
    mean = len(group[method][0].trace.exit_layers)  # the mean over the exits comes behind the exits
    columns = [mean, *(list(scores).index(name) for name in AREAS), *range(mean)]
    measures = (*MEASURES, *list(scores)[:mean])
    return measures, np.array(list(scores.values()))[columns], comparison.drawn[method][:, columns]


def _rows(gaps: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """A row of `DIFFERENCES` for each measure: the mean of the gaps of one method over settings."""
    first = gaps.iloc[0]
    measures = (
        first["measures"] if gaps["measures"].nunique() == 1 else MEASURES
    )  # of models with the same exits
    exact = np.mean([values[: len(measures)] for values in gaps["exact"]], axis=0)
    low, high = percentile_band(np.mean([values[:, : len(measures)] for values in gaps["drawn"]], axis=0))
    where = first["task"] if len(gaps) == 1 else f"mean of {len(gaps)} tasks"
    size = first["train_size"] if gaps["train_size"].nunique(dropna=False) == 1 else None
    for measure, *numbers in zip(measures, exact, low, high, strict=True):
        yield first["backbone"], where, size, first["method"], gaps["seeds"].min(), measure, *numbers
