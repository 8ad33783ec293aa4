"""A report from a folder of runs: figures, tables and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.records import write_text
from offramp.evaluation.columns import floats
from offramp.reports.figures import curve_figure, depth_figure, exits_figure, histogram_figure
from offramp.reports.html import page
from offramp.reports.study import Attack, Study, load_study
from offramp.reports.style import save_figure
from offramp.reports.tables import all_tables, exit_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def report(run_folder: str | Path, output: str | Path, *, interactive: bool = True) -> dict[str, Path]:
    """Write a report of all runs below a folder, from their records alone.

    Args:
        run_folder: a run's folder, or one that holds several; see `offramp.reports.schema`.
        output: folder for the report; files of an earlier one are overwritten.
        interactive: whether the page's curves answer to the mouse, which takes 5 MB.

    Returns:
        The files written, by name: `index.html`, `report.md`, `tables/….md`, `figures/….svg` and `.png`.

    Raises:
        DataError: where there are no records, or a record's table is missing or broken.
        OfframpError: where the report cannot be written.
        MissingExtraError: where matplotlib or plotly is not installed.
    """
    study, folder = load_study(run_folder), Path(output)
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


def all_figures(study: Study) -> dict[str, Figure]:
    """Every figure that the study has content for, by file name."""
    figures: dict[str, Figure] = {}
    for metric, curves in study.curves.items():
        figures[f"curves-{metric}"] = curve_figure(curves)
    for metric in metrics_of_exits(study):
        figures[f"exits-{metric}"] = exits_figure(exit_scores(study, metric), metric)
    for i, (layers, shares) in enumerate(clean_histograms(study).items(), start=1):
        figures[f"histogram-{i}"] = histogram_figure(shares, layers)
    for i, attack in enumerate(study.attacks, start=1):
        sides = {"clean": _shares(attack, "clean"), "attacked": _shares(attack, "adversarial")}
        title = f"Where examples leave: {attack.label}"
        figures[f"histogram-attack-{i}"] = histogram_figure(sides, attack.exit_layers, title)
    if study.attacks:
        deepest = max(attack.exit_layers[-1] for attack in study.attacks)
        figures["depth"] = depth_figure({a.label: a.found for a in study.attacks}, deepest)
    return figures


def metrics_of_exits(study: Study) -> list[str]:
    """Metrics for which there are scores of the single exits."""
    single = [run.tables["per_exit"] for _, run in study.labelled("per_exit")]
    compared = [str(run.get("metric", "accuracy")) for _, run in study.labelled("scores")]
    return list(dict.fromkeys([*(m for table in single for m in table["metric"].to_pylist()), *compared]))


def clean_histograms(study: Study) -> dict[tuple[int, ...], dict[str, Floats]]:
    """Shares that leave at each exit by model, those with the same exits together."""
    found: dict[tuple[int, ...], dict[str, Floats]] = {}
    for label, run in study.labelled("histogram"):
        table = run.tables["histogram"]
        found.setdefault(tuple(table["layer"].to_pylist()), {})[label] = floats(table, "share")
    return found


def _shares(attack: Attack, side: str) -> Floats:
    exits = np.asarray(attack.rows[f"{side}_exit"].to_pylist(), dtype=np.intp)
    return np.bincount(exits, minlength=len(attack.exit_layers)) / len(exits)


def _markdown(study: Study, tables: dict[str, str], pictures: dict[str, Path]) -> str:
    """The whole report as one Markdown file that shows the figures beside it."""
    doubts = [f"> {' '.join(doubt.split())}" for doubt in study.doubts]
    images = [f"![{name.replace('-', ' ')}](figures/{path.name})" for name, path in pictures.items()]
    return "\n\n".join([f"# {study.title}", *doubts, *images, *(t.strip() for t in tables.values())]) + "\n"
