"""`offramp sweep`: a grid of models or of attacks, cell by cell."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from offramp._core.errors import OfframpError
from offramp.cli.common import console, emit, limit_threads, note

if TYPE_CHECKING:
    from offramp.studies.grid import Plan, Status, Trial

WIDE = 4  # methods that fit side by side in any case


def sweep(
    config: Path,
    *,
    output: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    keep_models: bool = False,
    drop_texts: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Run a sweep: every model is trained, calibrated, traced on validation and recorded; or attacked.

    For example `offramp sweep configs/sweet-minilm.yaml`. What is recorded is not run again, so a sweep that was
    stopped goes on when the same command is given again. `offramp report results/sweet-minilm` makes tables and
    figures of what there is. A file with `models` and `recipes`, such as `configs/same-minilm.yaml`, attacks the
    models that a sweep with `--keep-models` left.

    Args:
        config: YAML file; those in `configs` are examples.
        output: folder of the records; by default `results/NAME`, NAME being the file's.
        engine: local, one cell after another; or ray, on the cluster that RAY_ADDRESS names or on this machine.
        workers: for ray, cells at once.
        keep_models: keep the models, which are deleted otherwise once they are traced; attacks need them.
        drop_texts: once all cells are recorded, leave the texts out of the rows of attacks, so that records of data
            that is not yours can be published; reports then show no examples.
        dry_run: only tell what would be run.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp.studies.grid import check_trials, is_recorded, run_grid
    from offramp.studies.plans import read_plan

    plan = read_plan(config)
    folder = output or Path("results") / plan.name
    board = ProgressTable(plan)
    if dry_run:
        check_trials(plan.trials)
        for cell in plan.trials:
            board.note(cell, "done" if is_recorded(cell, folder) else "waiting", "")
        console.print(board.view())
        emit(json, board.counts())
        return
    with board:
        failed = run_grid(
            plan, folder, engine=engine, workers=workers, keep_models=keep_models, on_status=board.note
        )
    note(f"sweep: {folder}")
    if drop_texts and board.counts()["done"] < len(plan.trials):
        note("texts are kept: not all cells are recorded yet")
    elif drop_texts:
        for cell in plan.trials:
            cell.drop_texts(folder)
    emit(json, {**board.counts(), "folder": str(folder), "reasons": failed})
    if failed:
        first = next(iter(failed.items()))
        raise OfframpError(
            f"{len(failed)} of {len(plan.trials)} cells failed, {first[0]} among them: {first[1]}"
        )


@dataclass
class ProgressTable:
    """What is done and what remains, as a table that keeps itself up to date; on a pipe, a line a cell."""

    plan: Plan
    status: dict[str, Status] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of finished cells, by method
    started: dict[str, float] = field(default_factory=dict)
    live: Live | None = None

    def __enter__(self) -> Self:
        if console.is_terminal:
            self.live = Live(get_renderable=self.view, console=console, refresh_per_second=1)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def note(self, cell: Trial, status: Status, reason: str) -> None:
        """What `run_grid` tells about a cell."""
        name, before = str(cell), self.status.get(str(cell))
        self.status[name] = status
        if status == "running":
            self.started[name] = time.monotonic()
        elif before == "running" and status == "done":
            self.seconds.setdefault(cell.column, []).append(time.monotonic() - self.started[name])
        if before in ("waiting", "running") and not self.live:
            spent = f", {time.monotonic() - self.started[name]:.0f} s" if before == "running" else ""
            why = f": {reason}" if reason else ""
            note(f"[{self.counts()['done']}/{len(self.plan.trials)}] {name}: {status}{spent}{why}")

    def counts(self) -> dict[str, int]:
        """Cells by what became of them."""
        found = dict.fromkeys(("done", "failed", "elsewhere", "running", "waiting"), 0)
        for status in self.status.values():
            found[status] += 1
        return {"trials": len(self.plan.trials), **found}

    def remaining(self) -> float | None:
        """Seconds that the rest may take in this process; None before every method left has been timed."""
        left = [
            cell.column for cell in self.plan.trials if self.status.get(str(cell)) in ("waiting", "running")
        ]
        if not left or not all(name in self.seconds for name in left):
            return None
        return sum(sum(self.seconds[name]) / len(self.seconds[name]) for name in left)

    def view(self) -> Group:
        """Cells done of those planned, by row and column, and what is running."""
        counts, rest = self.counts(), self.remaining()
        title = f"{self.plan.name}: {counts['done']} of {counts['trials']} cells"
        title += "" if rest is None else f", about {rest / 60:.0f} min to go"
        running = [name for name, status in self.status.items() if status == "running"]
        words = [f"{name}, {time.monotonic() - self.started[name]:.0f} s" for name in running]
        return Group(Text(title, style="bold"), self._grid(), *map(Text, words))

    def _grid(self) -> Table:
        table = Table()
        cells: dict[tuple[str, str], list[Trial]] = {}
        for cell in self.plan.trials:
            cells.setdefault((cell.row, cell.column), []).append(cell)
        places, methods = (list(dict.fromkeys(key[axis] for key in cells)) for axis in (0, 1))
        upright = len(methods) <= max(len(places), WIDE)  # many methods go downwards
        table.add_column("")
        for name in methods if upright else places:
            table.add_column(name, justify="right")
        for row in places if upright else methods:
            keys = [(row, name) for name in methods] if upright else [(name, row) for name in places]
            table.add_row(row, *(self._told(cells.get(key, [])) for key in keys))
        return table

    def _told(self, cells: list[Trial]) -> str:
        """Such as 3/5, with a mark for what is running or has failed."""
        if not cells:
            return ""
        found = [self.status.get(str(cell)) for cell in cells]
        marks = ("…" if "running" in found else "") + ("!" if "failed" in found else "")
        return f"{found.count('done')}/{len(cells)}{marks}"
