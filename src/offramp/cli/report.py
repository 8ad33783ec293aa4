"""`offramp report` and `offramp pack`: a report from the records of runs, and the records in a few small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from offramp._core.errors import ConfigError
from offramp.cli.common import JsonFlag, emit, note
from offramp.cli.paths import PathOption, writing


def report(
    runs: list[PathOption],
    *,
    output: PathOption | None = None,
    figures: tuple[str, ...] = ("*",),
    tables: Literal["files", "none"] = "files",
    rules: bool = False,
    thresholds: bool = False,
    json: JsonFlag = False,
) -> None:
    """Make figures, tables and a self-contained HTML page from run records alone.

    For example `offramp report runs`, which reads every record below `runs`. A study's folder gets the page, tables and
    figures of a study instead: methods compared task by task and on average; or, for attacks, the savings lost to each
    attack. Several studies that train make one report, such as `offramp report results/sweet-minilm
    results/sweet-pooler --output results/sweet-pooling`: it compares the methods under each pooling.

    Args:
        runs: folder of a run, of several runs, or of a study; packed ones, too. Or several studies that train.
        output: where the report goes; by default `report` inside that folder.
        figures: figures to write, by name, with `*` for any characters; all by default. `none` writes no figures.
        tables: files, each table also in a file of its own, in `tables`; none, all tables in report.md alone.
        rules: compare the exit rules on the models of a study that trains; by default in `rules` inside its folder.
        thresholds: compare thresholds of their own for each exit with one for all, on the models of a study that
            trains; by default in `thresholds` inside its folder.
    """
    from offramp.reports import report as run_report
    from offramp.studies.attacks.report import attack_report
    from offramp.studies.attacks.results import is_attack_study
    from offramp.studies.training.report import study_report, sweeps_report
    from offramp.studies.training.results import is_sweep

    options: dict[str, Any] = {
        "figures": () if figures == ("none",) else figures,
        "table_files": tables == "files",
        "progress": True,
    }
    if rules and thresholds:
        raise ConfigError("--rules and --thresholds make a report each: give one of them")
    if rules or thresholds:
        files = _compare(runs, output, options, "rules" if rules else "thresholds")
    elif len(runs) > 1:
        for folder in runs:
            if not is_sweep(folder):
                raise ConfigError(
                    f"only studies that train make one report of several folders, and {folder} is none: leave it out"
                )
        if output is None:
            raise ConfigError(
                "a report of several folders goes to none of them: give its folder with --output"
            )
        with writing(output):
            files = sweeps_report(runs, output, **options)
    else:
        (first,) = runs
        write = study_report if is_sweep(first) else attack_report if is_attack_study(first) else run_report
        with writing(output or first / "report"):
            files = write(first, output or first / "report", **options)
    for name, path in files.items():
        note(f"{name}: {path}")
    emit(json, {name: str(path) for name, path in files.items()})


def _compare(
    runs: list[PathOption],
    output: PathOption | None,
    options: dict[str, Any],
    what: Literal["rules", "thresholds"],
) -> dict[str, Path]:
    from offramp.studies.training.results import is_sweep
    from offramp.studies.training.rules import rules_report
    from offramp.studies.training.thresholds import thresholds_report

    if len(runs) > 1 or not is_sweep(runs[0]):
        compared = {"rules": "exit rules", "thresholds": "thresholds"}[what]
        raise ConfigError(f"--{what} compares {compared} on one study that trains: give its folder alone")
    target = output or runs[0] / what
    write = rules_report if what == "rules" else thresholds_report
    with writing(target):
        return write(runs[0], target, **options)
