"""`offramp report`: figures, tables and one HTML page from the records below a folder."""

from __future__ import annotations

from pathlib import Path

from offramp.cli.common import emit, note


def report(runs: Path, *, output: Path | None = None, json: bool = False) -> None:
    """Make figures, tables and a self-contained HTML page from run records alone.

    For example `offramp report runs`, which reads every record below `runs`. The folder of a sweep gets the tables
    and figures of a study instead: methods compared task by task and on average; or, where models were attacked, what
    each attack takes away.

    Args:
        runs: folder of one run, or one that holds several, or of a sweep.
        output: where the report goes; by default `report` inside it.
        json: print one JSON object on stdout.
    """
    from offramp.reports import report as write
    from offramp.studies.attacks.report import attack_report
    from offramp.studies.attacks.results import is_attack_study
    from offramp.studies.training.report import study_report
    from offramp.studies.training.results import is_sweep

    make = study_report if is_sweep(runs) else attack_report if is_attack_study(runs) else write
    files = make(runs, output or runs / "report")
    for name, path in files.items():
        note(f"{name}: {path}")
    emit(json, {name: str(path) for name, path in files.items()})
