"""A report from a folder of runs: figures, tables and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.records import write_text
from offramp.evaluation.arrow_tables import floats
from offramp.reports.contents import AttackRun, ReportContents, ReportSection, load_contents
from offramp.reports.figures import curve_figure, depth_figure, exits_figure, histogram_figure
from offramp.reports.html import page
from offramp.reports.reliability import reliability_figure
from offramp.reports.speed import latency_figure, stream_figure
from offramp.reports.style import save_figure
from offramp.reports.tables import all_tables, exit_scores
from offramp.reports.text_table import plain_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def report(run_folder: str | Path, output: str | Path, *, interactive: bool = True) -> dict[str, Path]:
    """Write a report of all runs below a folder, from their records alone.

    Args:
        run_folder: a run's folder, or one that holds several; see `offramp.reports.records`.
        output: folder for the report; files of an earlier one are overwritten.
        interactive: whether the page's curves answer to the mouse, which takes 5 MB.

    Returns:
        The files written, by name: `index.html`, `report.md`, `tables/….md`, `figures/….svg` and `.png`.

    Raises:
        DataError: where there are no records, or a record's table is missing or broken.
        OfframpError: where the report cannot be written.
        MissingExtraError: where matplotlib or plotly is not installed.
    """
    study, folder = load_contents(run_folder), Path(output)
    tables = all_tables(study)
    written: dict[str, Path] = {}
    pictures: dict[str, Path] = {}
    for name, figure in all_figures(study).items():
        svg, png = save_figure(figure, folder / "figures" / name)
        pictures[name] = svg
        written |= {f"figures/{svg.name}": svg, f"figures/{png.name}": png}
    texts = {f"tables/{name}.md": table.markdown() for name, table in tables.items()}
    texts["report.md"] = _markdown(study, texts, pictures)
    texts["index.html"] = page(study, tables, pictures, interactive=interactive)
    for name, content in texts.items():
        write_text(folder / name, content)
        written[name] = folder / name
    return written


def all_figures(study: ReportContents) -> dict[str, Figure]:
    """Every figure that the study has content for, by file name; a part's have its prefix in front."""
    return {
        f"{part.prefix}{name}": figure for part in study.parts for name, figure in part_figures(part).items()
    }


def part_figures(part: ReportSection) -> dict[str, Figure]:
    """The figures of what was measured on one data set."""
    told = f": {part.data}" if part.data else ""
    figures = {
        f"curves-{m}": curve_figure(curves, f"Score against cost{told}") for m, curves in part.curves.items()
    }
    for metric in metrics_of_exits(part):
        figures[f"exits-{metric}"] = exits_figure(
            exit_scores(part, metric), metric, f"Every exit by itself{told}"
        )
    for i, (layers, shares) in enumerate(clean_histograms(part).items(), start=1):
        figures[f"histogram-{i}"] = histogram_figure(shares, layers, f"Where examples leave{told}")
    for i, (label, run) in enumerate(part.labelled("reliability"), start=1):
        title = f"Reliability of every exit: {label}"
        figures[f"reliability-{i}"] = reliability_figure(run.tables["reliability"], title)
    for i, attack in enumerate(part.attacks, start=1):
        sides = {"clean": _shares(attack, "clean"), "attacked": _shares(attack, "adversarial")}
        title = f"Where examples leave: {attack.label}"
        figures[f"histogram-attack-{i}"] = histogram_figure(sides, attack.exit_layers, title)
    figures |= speed_figures(part, told)
    if part.attacks:
        deepest = max(attack.exit_layers[-1] for attack in part.attacks)
        results = {attack.label: attack.found for attack in part.attacks}
        figures["depth"] = depth_figure(results, deepest, f"How deep examples go{told}")
    return figures


def speed_figures(part: ReportSection, told: str) -> dict[str, Figure]:
    """Accuracy against latency for every bench and batch size, and every stream."""
    figures = {}
    for i, (label, run) in enumerate(part.labelled("bench"), start=1):
        rows = run.tables["bench"].to_pylist()
        for size in dict.fromkeys(row["batch_size"] for row in rows):
            chosen = [row for row in rows if row["batch_size"] == size and row["score"] is not None]
            if chosen:
                title = f"{label}, batch {size}{told}"
                figures[f"bench-{i}-batch-{size}"] = latency_figure(
                    chosen, str(run.get("metric", "accuracy")), title
                )
    for i, (label, run) in enumerate(part.labelled("stream"), start=1):
        figures[f"stream-{i}"] = stream_figure(run.tables["stream"].to_pylist(), f"{label}: a stream{told}")
    return figures


def metrics_of_exits(part: ReportSection) -> list[str]:
    """Metrics for which there are scores of the single exits."""
    single = [run.tables["per_exit"] for _, run in part.labelled("per_exit")]
    compared = [str(run.get("metric", "accuracy")) for _, run in part.labelled("scores")]
    return list(dict.fromkeys([*(m for table in single for m in table["metric"].to_pylist()), *compared]))


def clean_histograms(part: ReportSection) -> dict[tuple[int, ...], dict[str, Floats]]:
    """Shares that leave at each exit by model, those with the same exits together."""
    found: dict[tuple[int, ...], dict[str, Floats]] = {}
    for label, run in part.labelled("histogram"):
        table = run.tables["histogram"]
        found.setdefault(tuple(table["layer"].to_pylist()), {})[label] = floats(table, "share")
    return found


def _shares(attack: AttackRun, side: str) -> Floats:
    exits = np.asarray(attack.rows[f"{side}_exit"].to_pylist(), dtype=np.intp)
    return np.bincount(exits, minlength=len(attack.exit_layers)) / len(exits)


def _markdown(study: ReportContents, tables: dict[str, str], pictures: dict[str, Path]) -> str:
    """The whole report as one Markdown file that shows the figures beside it."""
    doubts = [f"> {plain_markdown(doubt)}" for doubt in study.doubts]
    images = [f"![{name.replace('-', ' ')}](figures/{path.name})" for name, path in pictures.items()]
    return (
        "\n\n".join(
            [f"# {plain_markdown(study.title)}", *doubts, *images, *(t.strip() for t in tables.values())]
        )
        + "\n"
    )
