"""A report from the folder of an attack study: tables in Markdown and CSV, and figures, from its records alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core.records import write_text
from offramp.reports.style import save_figure
from offramp.reports.text_table import TextTable, doubts_table, plain_markdown
from offramp.studies.attacks.compare import difference_table, number_table
from offramp.studies.attacks.figures import attack_figures
from offramp.studies.attacks.results import load_attacks, load_transfers
from offramp.studies.attacks.study import AttackStudy, attack_study
from offramp.studies.attacks.tables import attack_tables
from offramp.studies.attacks.transfer_tables import summary_table, transfer_matrices

if TYPE_CHECKING:
    import pyarrow as pa

AXES = {"strategies": "method", "criteria": "criterion", "recipes": "attack"}


def attack_report(folder: str | Path, output: str | Path, *, resamples: int = 1000) -> dict[str, Path]:
    """Write the report of an attack study.

    Args:
        folder: that `offramp sweep` wrote to; cells that are missing yet are left out.
        output: folder for the report; files of an earlier one are overwritten.
        resamples: of the bootstrap over examples and seeds.

    Returns:
        The files written, by name: `report.md`, `tables/….md` and `.csv`, `figures/….svg` and `.png`.

    Raises:
        DataError: where there are no attacks, or an attack's rows are missing.
        OfframpError: where the report cannot be written.
    """
    found = attack_study(load_attacks(folder), load_transfers(folder), resamples=resamples)
    target, written = Path(output), dict[str, Path]()
    pictures: dict[str, str] = {}
    for name, figure in attack_figures(found).items():
        svg, png = save_figure(figure, target / "figures" / name)
        pictures[name] = svg.name
        written |= {f"figures/{svg.name}": svg, f"figures/{png.name}": png}
    tables = all_tables(found)
    texts = {f"tables/{name}.md": table.markdown() for name, table in tables.items()}
    texts |= {f"tables/{name}.csv": as_csv(table) for name, table in data_tables(found).items()}
    texts["report.md"] = markdown(Path(folder).resolve().name, found, tables, pictures)
    for name, content in texts.items():
        write_text(target / name, content)
        written[name] = target / name
    return written


def all_tables(study: AttackStudy) -> dict[str, TextTable]:
    """Every table for reading, by file name."""
    tables = attack_tables(study)
    carried = summary_table(study.transfers)
    tables |= {"transfer": carried} if carried.rows else {}
    for matrix in transfer_matrices(study.transfers):
        tables[f"transfer-{matrix.attack}-{matrix.task}-{matrix.backbone}"] = matrix.table()
    doubts = doubts_table(study.doubts)
    return tables | ({"doubts": doubts} if doubts.rows else {})


def data_tables(study: AttackStudy) -> dict[str, pa.Table]:
    """Every table for computing with, by file name."""
    found = {"numbers": number_table(study)}
    for name, axis in AXES.items():
        rows = difference_table(study, axis)
        found |= {name: rows} if rows.num_rows else {}
    return found | ({} if study.transfers is None else {"transfer": study.transfers})


def as_csv(table: pa.Table) -> str:
    """A table as CSV."""
    from pyarrow import csv

    sink = io.BytesIO()
    csv.write_csv(table, sink)
    return sink.getvalue().decode("utf-8")


def markdown(title: str, study: AttackStudy, tables: dict[str, TextTable], pictures: dict[str, str]) -> str:
    """The whole report as one Markdown file that shows the figures beside it."""
    models = len({(*attack.setting[:3], attack.seed) for attack in study.attacks})
    told = [f"{len(study.attacks)} attacks on {models} models, {len(study.settings)} settings."]
    images = [f"![{name.replace('-', ' ')}](figures/{file})" for name, file in pictures.items()]
    parts = [table.markdown().strip() for table in tables.values()]
    return "\n\n".join([f"# {plain_markdown(title)}", *told, *images, *parts]) + "\n"
