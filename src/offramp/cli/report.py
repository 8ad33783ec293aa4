"""`offramp report` and `offramp pack`: a report from the records of runs, and the records in a few small files."""

from __future__ import annotations

from typing import Literal

from offramp.cli.common import JsonFlag, emit, note
from offramp.cli.paths import PathOption, writing


def report(
    runs: PathOption,
    *,
    output: PathOption | None = None,
    figures: tuple[str, ...] = ("*",),
    tables: Literal["files", "none"] = "files",
    json: JsonFlag = False,
) -> None:
    """Make figures, tables and a self-contained HTML page from run records alone.

    For example `offramp report runs`, which reads every record below `runs`. A study's folder gets the tables and
    figures of a study instead: methods compared task by task and on average; or, for attacks, the savings lost to each
    attack.

    Args:
        runs: folder of a run, of several runs, or of a study; packed ones, too.
        output: where the report goes; by default `report` inside that folder.
        figures: figures to write, by name, with `*` for any characters; all by default. `none` writes no figures.
        tables: files, each table also in a file of its own, in `tables`; none, all tables in report.md alone.
    """
    from offramp.reports import report as run_report
    from offramp.studies.attacks.report import attack_report
    from offramp.studies.attacks.results import is_attack_study
    from offramp.studies.training.report import study_report
    from offramp.studies.training.results import is_sweep

    write = study_report if is_sweep(runs) else attack_report if is_attack_study(runs) else run_report
    folder, shown = output or runs / "report", () if figures == ("none",) else figures
    with writing(folder):
        files = write(runs, folder, figures=shown, table_files=tables == "files")
    for name, path in files.items():
        note(f"{name}: {path}")
    emit(json, {name: str(path) for name, path in files.items()})
