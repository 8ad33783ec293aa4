"""Thresholds of their own for each exit against one for all, on the models of a training study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from offramp._core import progress as display
from offramp._core.errors import DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.calibration.latency import keep
from offramp.calibration.thresholds import Thresholds, measure, tune_threshold
from offramp.criteria import with_threshold
from offramp.evaluation.bootstrap import LEVEL
from offramp.reports import check_report, write_report
from offramp.reports.study_page import Chapter, StudyContents, study_page
from offramp.reports.summary import Summary
from offramp.reports.text_table import TextTable, interval, number, signed
from offramp.studies.training.results import Result, load_results, records_of
from offramp.studies.training.tables import POINTS, name_of

DROP = 0.01  # how far below the full model's the score may be on the half that tunes
MODEL = ["encoder", "task", "method", "size", "seed"]


def thresholds_report(
    folder: UserPath,
    output: UserPath,
    *,
    figures: Sequence[str] = (),
    table_files: bool = True,
    progress: bool = False,
) -> dict[str, Path]:
    """Write a report that compares thresholds of their own with shared ones, and return its files by name.

    Every model is tuned on half of its validation rows for a score at most one point below the full model's, and
    measured on the other half; then the halves change places.

    Args:
        folder: of the study.
        output, figures, table_files, progress: as for `study_report`, which also lists the errors. There are no
            figures.
    """
    check_report(output)
    results = load_results(folder)
    frame = compare_thresholds(results, progress=progress)
    lead = (
        f"{len(frame)} models, each tuned on half of its validation rows for a score at most one point below the full "
        "model's and measured on the other half, both ways."
    )
    title, tables = f"{user_path(folder).resolve().name}, thresholds", {"thresholds": thresholds_table(frame)}
    if len(zero := compare_layer_zero(results, progress=progress)):
        tables["layer-zero"] = layer_zero_table(zero)
    contents = StudyContents(
        Summary("Do thresholds of their own for each exit save more?", lead, _answer(tables["thresholds"])),
        [Chapter("Thresholds compared", tables=list(tables))],
        left_out=(),
        doubts=(),
        records=records_of([folder]),
    )
    return write_report(
        output,
        title=title,
        lead=[lead],
        doubts=[],
        tables=tables,
        figures={},
        shown=figures,
        table_files=table_files,
        page=lambda drawn: study_page(title, contents, tables, drawn),
        progress=progress,
    )


def _answer(table: TextTable) -> tuple[str, str]:
    """The means over all models and the paired differences, which the last row has."""
    shared, own, cost, shared_drop, own_drop, drop = table.rows[-1][4:]
    return (
        f"With a threshold for each exit the mean cost is {own} of the full model's, with one for all {shared}: a "
        f"difference of {cost}.",
        f"The score lies {own_drop} and {shared_drop} points below the full model's: a difference of {drop}.",
    )


def compare_thresholds(results: Sequence[Result], *, progress: bool = False) -> pd.DataFrame:
    """A row for each model: `MODEL`, and `shared_cost`, `own_cost`, `shared_drop` and `own_drop` on rows held out.

    Raises:
        DataError: no model is a classifier.
    """
    rows = [
        _model(result)
        | {
            f"{form}_{name}": value
            for form in get_args(Thresholds)
            for name, value in held_out(result, result.logits_trace, form).items()
        }
        for result in display.track(_classifiers(results), "tune every model", show=progress)
    ]
    if not rows:
        raise DataError("no model of this study is a classifier: thresholds are compared for classifiers")
    return pd.DataFrame(rows)


def compare_layer_zero(results: Sequence[Result], *, progress: bool = False) -> pd.DataFrame:
    """Own thresholds with layer 0 against one threshold without it, on models that have it; the frame may be empty.

    Returns:
        For each model and each `allowed` drop, `MODEL`, `without_cost` and `without_drop` (one threshold, a drop of
        one point allowed), and `own_cost` and `own_drop` (layer 0, own thresholds), on rows held out.
    """
    models = [r for r in _classifiers(results) if r.logits_trace.exit_layers[0] == 0]
    rows = []
    for result in display.track(models, "tune with layer 0 and without", show=progress):
        run = result.logits_trace
        without = held_out(result, keep(run, tuple(range(1, run.exits))), "shared")
        for allowed in (DROP, 0.0):
            own = held_out(result, run, "own", allowed)
            numbers = {
                f"{kind}_{k}": v for kind, n in (("without", without), ("own", own)) for k, v in n.items()
            }
            rows.append(_model(result) | {"allowed": allowed} | numbers)
    return pd.DataFrame(rows)


def _classifiers(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.logits_trace.kind == "classification"]


def _model(result: Result) -> dict[str, Any]:
    setting = result.setting
    names = (setting.backbone, setting.task, name_of(result.method), setting.train_size, result.seed)
    return dict(zip(MODEL, names, strict=True))


def held_out(result: Result, run: Trace, form: Thresholds, allowed: float = DROP) -> dict[str, float]:
    """Mean `cost` and `drop` over two halves of the rows, each tuned on the other. All models have the same halves.

    Args:
        result: gives the rule and the metric.
        run: its trace, or some exits of it.
        form: of the thresholds.
        allowed: drop below the full model on the half that tunes.
    """
    halves = np.array_split(generator(0, "thresholds", len(run)).permutation(len(run)), 2)
    numbers = []
    for tuning, scoring in (halves, halves[::-1]):
        policy = tune_threshold(
            run.take(np.sort(tuning)),
            with_threshold(result.rule, result.rule.default_threshold),
            max_accuracy_drop=allowed,
            metric=result.metric,
            thresholds=form,
        )
        rest = run.take(np.sort(scoring))
        measured = measure(rest, policy.decide(rest).exit, result.metric)
        numbers.append((measured["cost"], measured["full"] - measured["reached"]))
    cost, drop = np.mean(numbers, axis=0).tolist()
    return {"cost": cost, "drop": drop}


def thresholds_table(frame: pd.DataFrame) -> TextTable:
    """Costs and drops by method and by task, and for all models together."""
    rows = [
        _row((encoder, f"mean of {models['task'].nunique()}", method), models, "task")
        for (encoder, method), models in frame.groupby(["encoder", "method"], sort=False)
    ]
    rows += [
        _row((encoder, task, "all"), models, ["method", "seed"])
        for (encoder, task), models in frame.groupby(["encoder", "task"], sort=False)
    ]
    rows.append(_row(("all", f"mean of {frame['task'].nunique()}", "all"), frame, "task"))
    costs = ("cost, shared", "own", "difference")
    drops = ("drop in points, shared", "own", "difference")
    note = (
        "Means over models and both halves. Differences are paired, own − shared; brackets: 95 % t-intervals over the "
        "means of tasks, in the rows of one task over its models."
    )
    header = ("encoder", "task", "method", "models", *costs, *drops)
    return TextTable("Own thresholds against shared ones", header, tuple(rows), note, words=3)


def layer_zero_table(frame: pd.DataFrame) -> TextTable:
    """Costs and drops by task and allowed drop, with and without layer 0."""
    keys, numbers = ["encoder", "task", "allowed"], ["without_cost", "own_cost", "without_drop", "own_drop"]
    tasks = frame.groupby(keys, sort=False, as_index=False)[numbers].mean()
    mean = tasks.assign(task=f"mean of {tasks['task'].nunique()}").groupby(keys, sort=False, as_index=False)
    rows = [
        (
            str(row.encoder),
            str(row.task),
            number(row.allowed * POINTS, 0),
            *(number(n) for n in (row.without_cost, row.own_cost, row.own_cost / row.without_cost)),
            *(number(n * POINTS, 2) for n in (row.without_drop, row.own_drop)),
        )
        for row in pd.concat([tasks, mean[numbers].mean()]).itertuples()
    ]
    costs = ("cost without layer 0", "with it", "ratio")
    header = ("encoder", "task", "allowed drop in points", *costs, "drop without layer 0", "with it")
    note = (
        "Means over models and both halves. Without layer 0: one threshold, chosen for a drop of at most one point on "
        "the half that tunes. With it: a threshold for each exit, chosen for the allowed drop. The ratio is that of "
        "the mean costs."
    )
    return TextTable("Layer 0 with own thresholds", header, tuple(rows), note, words=2)


def _row(names: tuple[str, str, str], models: pd.DataFrame, unit: str | list[str]) -> tuple[str, ...]:
    """A row of the table; the interval is over the means of units."""
    means = models.groupby(unit)[["shared_cost", "own_cost", "shared_drop", "own_drop"]].mean()
    cells = []
    for what, scale, digits in (("cost", 1, 3), ("drop", POINTS, 2)):
        shared, own = means[f"shared_{what}"] * scale, means[f"own_{what}"] * scale
        cells += [
            number(shared.mean(), digits),
            number(own.mean(), digits),
            _difference(own - shared, digits),
        ]
    return (*names, str(len(models)), *cells)


def _difference(differences: pd.Series[float], digits: int) -> str:
    """A mean with its interval; without one for a single difference."""
    from scipy.stats import sem, t

    mean = differences.mean()
    if len(differences) < 2:
        return signed(mean, digits)
    half = t.ppf((1 + LEVEL) / 2, len(differences) - 1) * sem(differences)
    return interval(mean, mean - half, mean + half, digits, sign=True)
