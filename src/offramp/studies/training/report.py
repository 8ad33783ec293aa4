"""A report from the folder of a sweep: Markdown tables and figures, from its records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core.records import write_text
from offramp.evaluation.reliability import pool_reliability
from offramp.reports.reliability import calibration_table, reliability_figure
from offramp.reports.style import save_figure
from offramp.reports.text_table import TextTable, doubts_table
from offramp.studies.names import slug
from offramp.studies.training.conflict import conflict_study
from offramp.studies.training.conflict_report import conflict_figures, conflict_tables
from offramp.studies.training.figures import study_figures
from offramp.studies.training.results import load_results, reliability_by_method
from offramp.studies.training.study import MethodStudy, study
from offramp.studies.training.tables import name_of, study_tables

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

ByMethod = dict[tuple[str, str, str], "pa.Table"]  # encoder, task with its size, method


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
    results, target = load_results(folder), Path(output)
    found = study(results, resamples=resamples)
    pulls = conflict_study(found.compared, resamples=resamples)
    reliable = reliability_by_method(found.groups)
    figures = study_figures(found) | conflict_figures(pulls) | _reliability_figures(reliable)
    tables = study_tables(found) | conflict_tables(pulls) | _calibration_tables(reliable)
    tables |= {"doubts": doubts_table(found.doubts)} if found.doubts else {}
    written: dict[str, Path] = {}
    pictures: dict[str, str] = {}
    for name, figure in figures.items():
        svg, png = save_figure(figure, target / "figures" / name)
        pictures[name] = svg.name
        written |= {f"figures/{svg.name}": svg, f"figures/{png.name}": png}
    texts = {f"tables/{name}.md": table.markdown() for name, table in tables.items()}
    texts["report.md"] = markdown(Path(folder).resolve().name, found, texts, pictures)
    for name, content in texts.items():
        write_text(target / name, content)
        written[name] = target / name
    return written


def _reliability_figures(reliable: ByMethod) -> dict[str, Figure]:
    """A diagram for each encoder and method, all tasks and seeds together."""
    pooled: dict[tuple[str, str], list[pa.Table]] = {}
    for (backbone, _, method), table in reliable.items():
        pooled.setdefault((backbone, method), []).append(table)
    return {
        f"reliability-{slug(method)}-{slug(backbone)}": reliability_figure(
            pool_reliability(tables), f"Reliability of every exit, {name_of(method)}, {backbone}"
        )
        for (backbone, method), tables in pooled.items()
    }


def _calibration_tables(reliable: ByMethod) -> dict[str, TextTable]:
    if not reliable:
        return {}
    named: dict[tuple[str, ...], pa.Table] = {
        (backbone, task, name_of(method)): table for (backbone, task, method), table in reliable.items()
    }
    return {"calibration": calibration_table(named, ("encoder", "task", "method"))}


def markdown(title: str, found: MethodStudy, tables: dict[str, str], pictures: dict[str, str]) -> str:
    """The whole report as one Markdown file that shows the figures beside it."""
    models = sum(len(results) for group in found.groups.values() for results in group.values())
    told = [f"{models} models, {len(found.groups)} comparisons."]
    doubts = [f"> left out: {reason}" for reason in found.left_out]
    images = [f"![{name.replace('-', ' ')}](figures/{file})" for name, file in pictures.items()]
    return "\n\n".join([f"# {title}", *told, *doubts, *images, *(t.strip() for t in tables.values())]) + "\n"
