"""The report of an attack study: tables in Markdown and CSV, and figures, from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from offramp._core.paths import UserPath, user_path
from offramp._core.run_files import RunFiles
from offramp.reports import check_report, write_report
from offramp.reports.study_page import study_page
from offramp.reports.text_table import doubts_table
from offramp.reports.write import NO_FIGURES
from offramp.studies.attacks.figures import attack_figures
from offramp.studies.attacks.page import attack_contents
from offramp.studies.attacks.results import load_attacks, load_transfers
from offramp.studies.attacks.study import attack_study
from offramp.studies.attacks.tables import attack_tables, difference_table, number_table
from offramp.studies.training.results import trial_records

DIFFERENCES = {"strategies": "method", "criteria": "criterion", "recipes": "attack"}


def attack_report(
    folder: UserPath,
    output: UserPath,
    *,
    figures: Sequence[str] = NO_FIGURES,
    table_files: bool = True,
    resamples: int = 1000,
    progress: bool = False,
) -> dict[str, Path]:
    """Write the report of an attack study: arguments as in `study_report`, figures such as `drop-*`.

    Raises:
        DataError: there are no attacks, or an attack's rows are missing.
    """
    check_report(output)
    study = attack_study(load_attacks(folder), load_transfers(folder), resamples=resamples, progress=progress)
    models = {(*attack.setting[:3], attack.seed) for attack in study.attacks}
    counts = f"{len(study.attacks)} attacks on {len(models)} models, {len(study.settings)} settings."
    title, records = user_path(folder).resolve().name, trial_records(RunFiles(folder))
    tables = attack_tables(study) | ({"doubts": doubts_table(study.doubts)} if study.doubts else {})
    transfers = {} if study.transfers is None else {"transfer": study.transfers}
    numbers = {name: difference_table(study, axis) for name, axis in DIFFERENCES.items()}
    return write_report(
        output,
        title=title,
        lead=[counts],
        tables=tables,
        figures=attack_figures(study) if figures else {},
        shown=figures,
        table_files=table_files,
        page=lambda drawn: study_page(title, attack_contents(study, records), tables, drawn),
        progress=progress,
        data={"numbers": number_table(study)} | {k: t for k, t in numbers.items() if t.num_rows} | transfers,
    )
