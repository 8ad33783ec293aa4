"""The page of a training study: the question, the answer in two sentences, and its sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offramp._core.text import slug, some_of
from offramp.reports.charts import Chart, short
from offramp.reports.forest import Estimate, Forest, forest_chart
from offramp.reports.page_sections import exit_marks
from offramp.reports.study_page import Chapter, StudyContents, StudyCurves, study_curves
from offramp.reports.summary import Summary, count_of, points
from offramp.reports.text_table import number, signed
from offramp.studies.training.results import ModelSetting
from offramp.studies.training.study import MethodStudy
from offramp.studies.training.tables import POINTS, in_points, name_of, size_of

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMES = 4  # in a sentence
COMPARED = 2  # methods that the answer names
MEAN = "mean of "
OVER = {"exits": "on average over the exits", "fast": "at fast speeds (cost up to ½)"}


def training_contents(
    study: MethodStudy,
    *,
    left_out: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    measure: str = "exits",
) -> StudyContents:
    """What the page of a training study shows.

    Args:
        study: the comparison of methods.
        left_out: sentences about what is not compared.
        records: of the trials.
        measure: that the answer is about: `exits`, or `fast` where the methods have the same exits.
    """
    summary = Summary(_question(study), _scope(study), tuple(_answer(study, measure)))
    tables = ("protocols", "rules", "differences") if measure == "exits" else ("rules", "tasks")
    exits = ("individual", "exits") if measure == "exits" else ()
    chapters = [
        Chapter("Methods compared", charts=list(_differences(study, measure)), tables=tables),
        Chapter(
            "Speed and accuracy",
            curves=[_curves(study, setting) for setting in study.groups],
            tables=("curves", "areas", "curve-differences", "layer-zero"),
        ),
        Chapter(
            "Every exit",
            charts=[_exits(study, setting) for setting in study.groups] if exits else (),
            tables=exits,
        ),
        Chapter("Who wins where", tables=("winners",)),
        Chapter("Training", tables=("sizes", "learning-rates"), figures=("sizes-*",)),
        Chapter("Calibration", tables=("calibration", "ranking"), figures=("reliability-*",)),
        Chapter(
            "Gradient conflict",
            tables=("conflict", "conflict-exits", "conflict-relation", "owners"),
            figures=("conflict-*", "owners-*"),
        ),
    ]
    return StudyContents(summary, chapters, left_out, study.doubts, records)


def _question(study: MethodStudy) -> str:
    tasks = list(dict.fromkeys(setting.task for setting in study.groups))
    on = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    if not study.others:
        return f"How good is each exit of {some_of([name_of(m) for m in study.methods], MOST_NAMES)} on {on}?"
    others = some_of([name_of(method) for method in study.others], MOST_NAMES)
    do = "does" if len(study.others) == 1 else "do"
    return f"How {do} {others} compare with {name_of(study.methods[0])} on {on}?"


def _scope(study: MethodStudy) -> str:
    encoders, tasks, sizes = (
        list(dict.fromkeys(getattr(setting, name) for setting in study.groups))
        for name in ("backbone", "task", "train_size")
    )
    seeds = {len(results) for group in study.groups.values() for results in group.values()}
    least, most = min(seeds, default=0), max(seeds, default=0)
    facts = [
        some_of(encoders, MOST_NAMES),
        some_of(tasks, MOST_NAMES),
        f"{some_of([size_of(size) for size in sizes], MOST_NAMES, separator=' or ')} training examples",
        count_of(most, "seed") if least == most else f"{least} to {most} seeds",
        count_of(len(study.compared), "model"),
    ]
    return " · ".join(facts)


def _averages(study: MethodStudy, measure: str) -> pd.DataFrame:
    """The differences over all tasks of an encoder; for an encoder with one task, those on it."""
    rows = study.differences[study.differences["measure"] == measure]
    averaged = rows["where"].str.startswith(MEAN)
    return rows[averaged | ~rows["backbone"].isin(rows[averaged]["backbone"])]


def _answer(study: MethodStudy, measure: str) -> Iterator[str]:
    """A sentence for each of the methods that differ most from the baseline; else one about its own exits."""
    rows = _averages(study, measure)
    if not len(rows):
        yield _alone(study)
        return
    largest = rows.groupby("method", sort=False)["difference"].agg(lambda values: values.abs().max())
    chosen = set(largest.sort_values(ascending=False, kind="stable").index[:COMPARED])
    base = name_of(study.methods[0])
    for method in (method for method in study.others if method in chosen):
        own = rows[rows["method"] == method]
        low, high = own.loc[own["difference"].idxmin()], own.loc[own["difference"].idxmax()]
        gaps = _gap(low) if len(own) == 1 else f"from {_gap(low, named=True)} to {_gap(high, named=True)}"
        where = own.iloc[0]["where"]
        tasks = f" and {where.removeprefix(MEAN)}" if where.startswith(MEAN) else ""
        claim = study.claims.get(method) if measure == "exits" else None
        claimed = "" if claim is None else f" ({signed(claim, 1)} in the SWEET paper, on other encoders)"
        yield f"{name_of(method)} scores {gaps} against {base}, {OVER[measure]}{tasks}{claimed}."


def _gap(row: Any, *, named: bool = False) -> str:
    sign = "+" if row["difference"] > 0 else ""
    gap = points({"estimate": row["difference"], "low": row["low"], "high": row["high"]})
    return f"{sign}{gap}" + (f" ({row['backbone']})" if named else "")


def _alone(study: MethodStudy) -> str:
    """The mean over the exits of every model of a study that compares nothing."""
    scores = [sum(result.scores) / len(result.scores) for result in study.compared]
    if not scores:
        return "No two methods share a seed and a task, so nothing is compared yet."
    names = some_of([name_of(method) for method in study.methods], MOST_NAMES)
    return (
        f"No method is compared with {names} here: its exits score from {number(min(scores))} to "
        f"{number(max(scores))} on average, over {count_of(len(scores), 'model')}."
    )


def _differences(study: MethodStudy, measure: str) -> Iterator[Forest | None]:
    """The differences to the baseline, a chart for each encoder and a row for each task."""
    rows = study.differences[study.differences["measure"] == measure]
    for encoder, own in rows.groupby("backbone", sort=False):
        several = own["train_size"].nunique() > 1
        methods: dict[str, dict[str, Estimate]] = {}
        for row in own.itertuples():
            name = "mean" if row.where.startswith(MEAN) else row.where
            name += f", {size_of(row.train_size)}" if several else ""
            ends = Estimate(*(POINTS * value for value in (row.difference, row.low, row.high)))
            methods.setdefault(name_of(row.method), {})[name] = ends
        claims = study.claims if measure == "exits" else {}
        dashed = " Dashed: the SWEET paper's averages, on other encoders." if claims else ""
        yield forest_chart(
            f"chart-differences-{slug(str(encoder))}",
            f"Against {name_of(study.methods[0])}, {encoder}",
            methods,
            x=f"Difference in points, {OVER[measure]}",
            say=lambda e: f"{in_points(e.value / POINTS, e.low / POINTS, e.high / POINTS)} points",
            write=short,
            claims={name_of(method): claim for method, claim in claims.items()},
            note=f"Bars: 95 % bootstrap intervals over seeds and examples.{dashed}",
        )


def _name(setting: ModelSetting) -> str:
    size = f", {size_of(setting.train_size)} examples" if setting.train_size else ""
    return f"{setting.backbone}, {setting.task}{size}"


def _curves(study: MethodStudy, setting: ModelSetting) -> StudyCurves | None:
    comparison, name = study.comparisons[setting], _name(setting)
    curves = {name_of(method): group for method, group in comparison.curves.items()}
    return study_curves(f"curves {name}", comparison.metric, curves, name)


def _exits(study: MethodStudy, setting: ModelSetting) -> Chart | None:
    comparison, name = study.comparisons[setting], _name(setting)
    scores: dict[str, list[dict[str, Any]]] = {}
    for row in comparison.scores.to_pylist():
        if row["place"].startswith("layer "):
            layer = {"layer": int(row["place"].removeprefix("layer "))}
            scores.setdefault(name_of(row["method"]), []).append(row | layer)
    return exit_marks(f"chart-{slug(f'exits {name}')}", name, scores, comparison.metric.capitalize())
