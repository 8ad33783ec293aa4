"""`offramp sweep`: a grid of models or of attacks, trial by trial."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Group
from rich.live import Live
from rich.text import Text

from offramp._core.errors import OfframpError
from offramp._core.progress import console, duration, quiet
from offramp._core.text import one_line
from offramp.cli.common import emit, limit_threads, note
from offramp.cli.paths import PathOption
from offramp.cli.tables import make_table, print_table

if TYPE_CHECKING:
    from offramp.studies.grid import Plan, Status, Trial

WIDE = 4  # methods that always fit side by side


def sweep(
    config: PathOption,
    *,
    output: PathOption | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    keep_models: bool = False,
    drop_texts: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Run a sweep: every model is trained, calibrated, traced on validation and recorded; or attacked.

    For example `offramp sweep configs/sweet-minilm.yaml`. Recorded trials do not run again, so the same command
    resumes a sweep that was stopped. `offramp report results/sweet-minilm` then makes its tables and figures. A file
    with `models` and `recipes`, such as `configs/same-minilm.yaml`, attacks the models that a sweep with
    `--keep-models` left.

    Args:
        config: YAML file; the folder `configs` has examples.
        output: folder of the records; by default `results/NAME`, with the name of the file.
        engine: local, one trial after another; or ray, on the cluster that RAY_ADDRESS names or on this machine.
        workers: for ray, trials at once.
        keep_models: keep the trained models, which attacks need; by default they are deleted once they are traced.
        drop_texts: leave the texts out of the rows of attacks once all trials are recorded, so that records of data
            that is not yours can be published; reports then show no examples.
        dry_run: only report what would run.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp._core.run_files import RunFiles
    from offramp.studies.attacks.plan import is_attack_plan, make_attack_plan
    from offramp.studies.grid import check_trials, is_recorded, run_grid
    from offramp.studies.plan_models import read_keys
    from offramp.studies.training.plan import make_sweep

    keys = read_keys(config)
    plan = make_attack_plan(keys) if is_attack_plan(keys) else make_sweep(keys)
    folder = output or Path("results") / plan.name
    runs, progress = RunFiles(folder), ProgressTable(plan)
    if dry_run:
        check_trials(plan.trials)
        for trial in plan.trials:
            progress.note(trial, "done" if is_recorded(trial, runs) else "waiting", "")
        print_table(console, progress.title(), *progress.grid())
        emit(json, progress.counts())
        return
    live = Live(get_renderable=progress.view, console=console, refresh_per_second=1)
    with live if console.is_terminal and not quiet.get() else nullcontext():
        failed = run_grid(
            plan, folder, engine=engine, workers=workers, keep_models=keep_models, on_status=progress.note
        )
    note(f"sweep: {folder}")
    if drop_texts and progress.counts()["done"] < len(plan.trials):
        note("texts are kept: not all trials are recorded yet")
    elif drop_texts:
        for trial in plan.trials:
            trial.drop_texts(RunFiles(folder))
    emit(json, {**progress.counts(), "folder": str(folder), "reasons": failed})
    for name, reason in failed.items():
        raise OfframpError(f"{len(failed)} of {len(plan.trials)} trials failed, such as {name}: {reason}")


@dataclass
class ProgressTable:
    """Progress of a grid as a table that updates itself; on a pipe, a line per trial.

    Attributes:
        plan: what runs.
        status: by name of the trial.
        seconds: of finished trials, by column.
        started: time at which a trial began, by its name.
    """

    plan: Plan
    status: dict[str, Status] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def note(self, trial: Trial, status: Status, reason: str) -> None:
        """Takes the status reports of `run_grid`."""
        name, before = str(trial), self.status.get(str(trial))
        self.status[name] = status
        if status == "running":
            self.started[name] = time.monotonic()
        elif before == "running" and status == "done":
            self.seconds.setdefault(trial.column, []).append(time.monotonic() - self.started[name])
        if before in ("waiting", "running") and not console.is_terminal:
            spent = f", {time.monotonic() - self.started[name]:.0f} s" if before == "running" else ""
            why = f": {reason}" if reason else ""
            rest = self.remaining()
            left = f", about {duration(rest)} to go" if rest is not None and status == "done" else ""
            note(f"[{self.counts()['done']}/{len(self.plan.trials)}] {name}: {status}{spent}{why}{left}")

    def counts(self) -> dict[str, int]:
        """Number of trials, and of those with each status."""
        counts = Counter(self.status.values())
        statuses: tuple[Status, ...] = ("done", "failed", "elsewhere", "running", "waiting")
        return {"trials": len(self.plan.trials), **{status: counts[status] for status in statuses}}

    def remaining(self) -> float | None:
        """Seconds that the rest may take in this process; None until each column that is left has been timed."""
        unfinished = ("waiting", "running")
        left = [trial.column for trial in self.plan.trials if self.status.get(str(trial)) in unfinished]
        if not left or not all(column in self.seconds for column in left):
            return None
        return sum(sum(self.seconds[column]) / len(self.seconds[column]) for column in left)

    def view(self) -> Group:
        """Finished and planned trials by row and column, and the running ones."""
        running = [name for name, status in self.status.items() if status == "running"]
        words = [f"{name}, {time.monotonic() - self.started[name]:.0f} s" for name in running]
        return Group(
            Text(self.title(), style="bold"), make_table(*self.grid()), *(Text(one_line(w)) for w in words)
        )

    def title(self) -> str:
        """How much is done, and how long the rest may take."""
        counts, rest = self.counts(), self.remaining()
        done = f"{self.plan.name}: {counts['done']} of {counts['trials']} trials"
        return done if rest is None else f"{done}, about {duration(rest)} to go"

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows; the longer of the two sides goes downwards, unless all columns fit."""
        trials: dict[tuple[str, str], list[Trial]] = {}
        for trial in self.plan.trials:
            trials.setdefault((trial.row, trial.column), []).append(trial)
        rows, columns = (list(dict.fromkeys(key[axis] for key in trials)) for axis in (0, 1))
        if len(columns) > max(len(rows), WIDE):
            trials = {(column, row): group for (row, column), group in trials.items()}
            rows, columns = columns, rows
        cells = [[one_line(row), *(self._counted(trials.get((row, c), [])) for c in columns)] for row in rows]
        return ["", *map(one_line, columns)], cells

    def _counted(self, trials: list[Trial]) -> str:
        """Such as 3/5, with a mark for running and for failed trials."""
        if not trials:
            return ""
        statuses = [self.status.get(str(trial)) for trial in trials]
        marks = ("…" if "running" in statuses else "") + ("!" if "failed" in statuses else "")
        return f"{statuses.count('done')}/{len(trials)}{marks}"
