"""A report from the folder of a sweep: Markdown tables and figures, from its records alone."""

from __future__ import annotations

from pathlib import Path

from offramp._core.records import write_text
from offramp.evaluation.study import MethodStudy, study
from offramp.evaluation.study_results import load_results
from offramp.reports.study_figures import study_figures
from offramp.reports.study_tables import study_tables
from offramp.reports.style import save_figure


def study_report(folder: str | Path, output: str | Path, *, resamples: int = 1000) -> dict[str, Path]:
    """Write the report of a sweep.

    Args:
        folder: that `offramp sweep` wrote to; cells that are missing yet are left out.
        output: folder for the report; files of an earlier one are overwritten.
        resamples: of the bootstrap over examples and seeds.

    Returns:
        The files written, by name: `report.md`, `tables/….md`, `figures/….svg` and `.png`.

    Raises:
        DataError: where there are no cells, or a cell's trace is missing or broken.
        OfframpError: where the report cannot be written.
    """
    found, target = study(load_results(folder), resamples=resamples), Path(output)
    written: dict[str, Path] = {}
    pictures: dict[str, str] = {}
    for name, figure in study_figures(found).items():
        svg, png = save_figure(figure, target / "figures" / name)
        pictures[name] = svg.name
        written |= {f"figures/{svg.name}": svg, f"figures/{png.name}": png}
    texts = {f"tables/{name}.md": table.markdown() for name, table in study_tables(found).items()}
    texts["report.md"] = markdown(Path(folder).resolve().name, found, texts, pictures)
    for name, content in texts.items():
        write_text(target / name, content)
        written[name] = target / name
    return written


def markdown(title: str, found: MethodStudy, tables: dict[str, str], pictures: dict[str, str]) -> str:
    """The whole report as one Markdown file that shows the figures beside it."""
    models = sum(len(results) for group in found.groups.values() for results in group.values())
    told = [f"{models} models, {len(found.groups)} comparisons."]
    doubts = [f"> left out: {reason}" for reason in found.left_out]
    images = [f"![{name.replace('-', ' ')}](figures/{file})" for name, file in pictures.items()]
    return "\n\n".join([f"# {title}", *told, *doubts, *images, *(t.strip() for t in tables.values())]) + "\n"
