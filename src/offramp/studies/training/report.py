"""The report of a training study: Markdown tables and figures, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from offramp._core.paths import UserPath, user_path
from offramp._core.text import slug
from offramp.reports import check_report, write_report
from offramp.reports.reliability import (
    calibration_table,
    pool_reliability,
    ranking_table,
    reliability_figure,
)
from offramp.reports.study_page import study_page
from offramp.reports.text_table import doubts_table
from offramp.reports.write import NO_FIGURES
from offramp.studies.training.conflict import conflict_figures, conflict_study, conflict_tables
from offramp.studies.training.figures import study_figures
from offramp.studies.training.page import training_contents
from offramp.studies.training.protocols import load_sweeps, protocols_table
from offramp.studies.training.results import (
    Result,
    load_results,
    ranking_by_method,
    records_of,
    reliability_by_method,
)
from offramp.studies.training.study import study
from offramp.studies.training.tables import name_of, study_tables

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

T = TypeVar("T")
KEYS = ("encoder", "task", "method")


def study_report(
    folder: UserPath,
    output: UserPath,
    *,
    figures: Sequence[str] = NO_FIGURES,
    table_files: bool = True,
    resamples: int = 1000,
    progress: bool = False,
) -> dict[str, Path]:
    """Write the report of a training study with `write_report`, and return its files by name.

    Args:
        folder: of the study; trials that have not run yet are left out.
        output: folder of the report.
        figures: figures to write, as names or patterns such as `curves-*`.
        table_files: whether every table gets a file in `tables/`, besides its place in `report.md`.
        resamples: of the bootstrap over examples and seeds.
        progress: show progress bars.

    Raises:
        DataError: there are no trials, or a trial's trace is missing or broken.
    """
    check_report(output)
    models = load_results(folder)
    title = user_path(folder).resolve().name
    return _write(models, title, [folder], output, figures, table_files, resamples, progress)


def sweeps_report(
    folders: Sequence[UserPath],
    output: UserPath,
    *,
    figures: Sequence[str] = NO_FIGURES,
    table_files: bool = True,
    resamples: int = 1000,
    progress: bool = False,
) -> dict[str, Path]:
    """Write one report of several training studies, in which each protocol (pooling, options) is an encoder of its own.

    Args:
        folders: of the studies; see `load_sweeps`.
        output, figures, table_files, resamples, progress: as for `study_report`, which also lists the errors;
            `DataError` also if two studies hold the same model.
    """
    check_report(output)
    results, left_out = load_sweeps(folders)
    title = ", ".join(user_path(folder).resolve().name for folder in folders)
    return _write(
        results, title, folders, output, figures, table_files, resamples, progress, left_out, by_protocol=True
    )


def _write(
    models: Sequence[Result],
    title: str,
    folders: Sequence[UserPath],
    output: UserPath,
    figures: Sequence[str],
    table_files: bool,
    resamples: int,
    progress: bool,
    left_out: Sequence[str] = (),
    *,
    by_protocol: bool = False,
) -> dict[str, Path]:
    results = study(models, resamples=resamples, progress=progress)
    conflicts = conflict_study(results.compared, resamples=resamples, progress=progress)
    reliable = reliability_by_method(results.groups)
    drawn: dict[str, Figure] = {}
    if figures:
        drawn = study_figures(results) | conflict_figures(conflicts) | _reliability_figures(reliable)
    tables = {"protocols": protocols_table(results)} if by_protocol and len(results.differences) else {}
    tables |= study_tables(results) | conflict_tables(conflicts)
    if reliable:
        tables["calibration"] = calibration_table(_named(reliable), KEYS)
    if ranking := ranking_by_method(results.groups, resamples, progress=progress):
        tables["ranking"] = ranking_table(_named(ranking), KEYS)
    if results.doubts:
        tables["doubts"] = doubts_table(results.doubts)
    missing = (*left_out, *results.left_out)
    contents = training_contents(results, left_out=missing, records=records_of(folders))
    return write_report(
        output,
        title=title,
        lead=[f"{len(results.compared)} models, {len(results.groups)} comparisons."],
        doubts=[f"left out: {reason}" for reason in missing],
        tables=tables,
        figures=drawn,
        shown=figures,
        table_files=table_files,
        page=lambda pictures: study_page(title, contents, tables, pictures),
        progress=progress,
    )


def _named(by_method: Mapping[tuple[str, str, str], T]) -> dict[tuple[str, ...], T]:
    return {(backbone, task, name_of(m)): value for (backbone, task, m), value in by_method.items()}


def _reliability_figures(reliable: Mapping[tuple[str, str, str], pa.Table]) -> dict[str, Figure]:
    """A diagram for each encoder and method, all tasks and seeds together."""
    figures = {}
    for backbone, method in dict.fromkeys((backbone, method) for backbone, _, method in reliable):
        tables = [reliable[key] for key in reliable if (key[0], key[2]) == (backbone, method)]
        title = f"Reliability of every exit, {name_of(method)}, {backbone}"
        stem = f"reliability-{slug(method)}-{slug(backbone)}"
        figures[stem] = reliability_figure(pool_reliability(tables), title)
    return figures
