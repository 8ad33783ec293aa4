"""The report of a folder of runs: figures, tables and one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.paths import UserPath
from offramp._core.text import slug
from offramp.evaluation.arrow_tables import floats
from offramp.reports.contents import ReportContents, ReportSection, load_contents
from offramp.reports.figures import (
    curve_figure,
    depth_figure,
    exits_figure,
    histogram_figure,
    latency_figure,
    stream_figure,
)
from offramp.reports.page import page
from offramp.reports.reliability import reliability_figure
from offramp.reports.tables import all_tables, exit_scores
from offramp.reports.write import NO_FIGURES, check_report, write_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def report(
    run_folder: UserPath,
    output: UserPath,
    *,
    figures: Sequence[str] = NO_FIGURES,
    table_files: bool = True,
    progress: bool = False,
) -> dict[str, Path]:
    """Write a report of all runs below a folder, from their records alone.

    Args:
        run_folder: a run's folder, or one that holds several; see `offramp.reports.records`.
        output: folder for the report; files of an earlier one are overwritten.
        figures: figures to write as files, as names or patterns such as `curves-*`. The page has charts of its own.
        table_files: whether every table gets a file in `tables/`, besides its place in `report.md`.
        progress: show progress bars.

    Returns:
        The files written, by name: `index.html`, `report.md`, `tables/….md`, `figures/….svg` and `.png`.

    Raises:
        DataError: there are no records, or a record's table is missing or broken.
        ConfigError: a name in `figures` that matches no figure.
        OfframpError: the report cannot be written.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    check_report(output)
    contents = load_contents(run_folder)
    tables = all_tables(contents)
    return write_report(
        output,
        title=contents.title,
        doubts=contents.doubts,
        tables=tables,
        figures=all_figures(contents),
        shown=figures,
        table_files=table_files,
        page=lambda drawn: page(contents, tables, drawn),
        progress=progress,
    )


def all_figures(contents: ReportContents) -> dict[str, Figure]:
    """Every figure, by file name, with the prefix of its section in front."""
    figures: dict[str, Figure] = {}
    for section in contents.sections:
        figures |= {f"{section.prefix}{name}": figure for name, figure in section_figures(section).items()}
    return figures


def section_figures(section: ReportSection) -> dict[str, Figure]:
    """The figures for one data set."""
    data = f": {section.data}" if section.data else ""
    figures = {
        f"curves-{slug(metric)}": curve_figure(curves, f"Score against cost{data}")
        for metric, curves in section.curves.items()
    }
    single = [row["metric"] for _, row in section.rows("per_exit")]
    compared = [str(run.get("metric", "accuracy")) for _, run in section.labelled("scores")]
    for metric in dict.fromkeys([*single, *compared]):
        scores = exit_scores(section, metric)
        figures[f"exits-{slug(metric)}"] = exits_figure(scores, metric, f"Every exit by itself{data}")
    histograms: dict[tuple[int, ...], dict[str, Floats]] = {}  # by exit layers and by model
    for label, run in section.labelled("histogram"):
        rows = run.tables["histogram"]
        histograms.setdefault(tuple(rows["layer"].to_pylist()), {})[label] = floats(rows, "share")
    for i, (layers, shares) in enumerate(histograms.items(), start=1):
        figures[f"histogram-{i}"] = histogram_figure(shares, layers, f"Where examples leave{data}")
    for i, (label, run) in enumerate(section.labelled("reliability"), start=1):
        title = f"Reliability of every exit: {label}"
        figures[f"reliability-{i}"] = reliability_figure(run.tables["reliability"], title)
    for i, attack in enumerate(section.attacks, start=1):
        sides = {}
        for name, side in (("clean", "clean"), ("attacked", "adversarial")):
            taken = floats(attack.rows, f"{side}_exit").astype(np.intp)
            sides[name] = np.bincount(taken, minlength=len(attack.exit_layers)) / len(taken)
        title = f"Where examples leave: {attack.label}"
        figures[f"histogram-attack-{i}"] = histogram_figure(sides, attack.exit_layers, title)
    figures |= speed_figures(section, data)
    if section.attacks:
        deepest = max(attack.exit_layers[-1] for attack in section.attacks)
        results = {attack.label: attack.robustness for attack in section.attacks}
        figures["depth"] = depth_figure(results, deepest, f"How deep examples go{data}")
    return figures


def speed_figures(section: ReportSection, data: str) -> dict[str, Figure]:
    """Accuracy against latency for every bench and batch size, and every stream; `data` ends the titles."""
    figures: dict[str, Figure] = {}
    for i, (label, run) in enumerate(section.labelled("bench"), start=1):
        rows = run.tables["bench"].to_pylist()
        for size in dict.fromkeys(row["batch_size"] for row in rows):
            chosen = [row for row in rows if row["batch_size"] == size and row["score"] is not None]
            if chosen:
                metric = str(run.get("metric", "accuracy"))
                title = f"{label}, batch {size}{data}"
                figures[f"bench-{i}-batch-{size}"] = latency_figure(chosen, metric, title)
    for i, (label, run) in enumerate(section.labelled("stream"), start=1):
        figures[f"stream-{i}"] = stream_figure(run.tables["stream"].to_pylist(), f"{label}: a stream{data}")
    return figures
