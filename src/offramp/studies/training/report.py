"""The report of a training study: Markdown tables and figures, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core.paths import UserPath, user_path
from offramp.reports import check_report, write_report
from offramp.reports.reliability import calibration_table, pool_reliability, reliability_figure
from offramp.reports.text_table import doubts_table
from offramp.reports.write import NO_FIGURES
from offramp.studies.grid import slug
from offramp.studies.training.conflict import conflict_figures, conflict_study, conflict_tables
from offramp.studies.training.figures import study_figures
from offramp.studies.training.results import load_results, reliability_by_method
from offramp.studies.training.study import study
from offramp.studies.training.tables import name_of, study_tables

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


def study_report(
    folder: UserPath,
    output: UserPath,
    *,
    figures: Sequence[str] = NO_FIGURES,
    table_files: bool = True,
    resamples: int = 1000,
) -> dict[str, Path]:
    """Write the report of a training study with `write_report`, and return its files by name.

    Args:
        folder: of the study; trials that have not run yet are left out.
        output: folder of the report.
        figures: figures to write, as names or patterns such as `curves-*`.
        table_files: whether every table gets a file in `tables/`, besides its place in `report.md`.
        resamples: of the bootstrap over examples and seeds.

    Raises:
        DataError: there are no trials, or a trial's trace is missing or broken.
    """
    check_report(output)
    results = study(load_results(folder), resamples=resamples)
    conflicts = conflict_study(results.compared, resamples=resamples)
    reliable = reliability_by_method(results.groups)
    drawn: dict[str, Figure] = {}
    if figures:
        drawn = study_figures(results) | conflict_figures(conflicts) | _reliability_figures(reliable)
    tables = study_tables(results) | conflict_tables(conflicts)
    if reliable:
        named: dict[tuple[str, ...], pa.Table] = {
            (backbone, task, name_of(method)): table for (backbone, task, method), table in reliable.items()
        }
        tables["calibration"] = calibration_table(named, ("encoder", "task", "method"))
    if results.doubts:
        tables["doubts"] = doubts_table(results.doubts)
    return write_report(
        output,
        title=user_path(folder).resolve().name,
        lead=[
            f"{len(results.compared)} models, {len(results.groups)} comparisons.",
            *(f"> left out: {reason}" for reason in results.left_out),
        ],
        tables=tables,
        figures=drawn,
        shown=figures,
        table_files=table_files,
    )


def _reliability_figures(reliable: Mapping[tuple[str, str, str], pa.Table]) -> dict[str, Figure]:
    """A diagram for each encoder and method, all tasks and seeds together."""
    figures = {}
    for backbone, method in dict.fromkeys((backbone, method) for backbone, _, method in reliable):
        tables = [reliable[key] for key in reliable if (key[0], key[2]) == (backbone, method)]
        title = f"Reliability of every exit, {name_of(method)}, {backbone}"
        stem = f"reliability-{slug(method)}-{slug(backbone)}"
        figures[stem] = reliability_figure(pool_reliability(tables), title)
    return figures
