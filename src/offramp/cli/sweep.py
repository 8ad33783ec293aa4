"""`offramp sweep`: strategies × encoders × tasks × training sizes × seeds, cell by cell."""

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
    from offramp.evaluation.sweep import Status
    from offramp.evaluation.sweep_plan import Cell, Sweep

WIDE = 4  # methods that fit side by side in any case


def sweep(
    config: Path,
    *,
    output: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    keep_models: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Run a sweep: every cell is trained, calibrated, traced on validation and recorded.

    For example `offramp sweep configs/sweet-minilm.yaml`. What is recorded is not run again, so a sweep that was
    stopped goes on when the same command is given again. `offramp report results/sweet-minilm` makes tables and
    figures of what there is.

    Args:
        config: YAML file; those in `configs` are examples.
        output: folder of the records; by default `results/NAME`, NAME being the file's.
        engine: local, one cell after another; or ray, on the cluster that RAY_ADDRESS names or on this machine.
        workers: for ray, cells at once.
        keep_models: keep the models, which are deleted otherwise once they are traced.
        dry_run: only tell what would be run.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp.evaluation.study import with_tuned_rates
    from offramp.evaluation.sweep import check_cells, is_recorded, run_sweep
    from offramp.evaluation.sweep_plan import read_sweep

    plan = with_tuned_rates(read_sweep(config))
    folder = output or Path("results") / plan.name
    board = Board(plan)
    if dry_run:
        check_cells(plan.cells)
        for cell in plan.cells:
            board.note(cell, "done" if is_recorded(cell, folder) else "waiting", "")
        console.print(board.view())
        emit(json, board.counts())
        return
    with board:
        failed = run_sweep(
            plan, folder, engine=engine, workers=workers, keep_models=keep_models, watch=board.note
        )
    note(f"sweep: {folder}")
    emit(json, {**board.counts(), "folder": str(folder), "reasons": failed})
    if failed:
        first = next(iter(failed.items()))
        raise OfframpError(
            f"{len(failed)} of {len(plan.cells)} cells failed, {first[0]} among them: {first[1]}"
        )


@dataclass
class Board:
    """What is done and what remains, as a table that keeps itself up to date; on a pipe, a line a cell."""

    plan: Sweep
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

    def note(self, cell: Cell, status: Status, reason: str) -> None:
        """What `run_sweep` tells about a cell."""
        name, before = str(cell), self.status.get(str(cell))
        self.status[name] = status
        if status == "running":
            self.started[name] = time.monotonic()
        elif before == "running" and status == "done":
            self.seconds.setdefault(cell.method.name, []).append(time.monotonic() - self.started[name])
        if before in ("waiting", "running") and not self.live:
            spent = f", {time.monotonic() - self.started[name]:.0f} s" if before == "running" else ""
            why = f": {reason}" if reason else ""
            note(f"[{self.counts()['done']}/{len(self.plan.cells)}] {name}: {status}{spent}{why}")

    def counts(self) -> dict[str, int]:
        """Cells by what became of them."""
        found = dict.fromkeys(("done", "failed", "elsewhere", "running", "waiting"), 0)
        for status in self.status.values():
            found[status] += 1
        return {"cells": len(self.plan.cells), **found}

    def remaining(self) -> float | None:
        """Seconds that the rest may take in this process; None before every method left has been timed."""
        left = [
            cell.method.name
            for cell in self.plan.cells
            if self.status.get(str(cell)) in ("waiting", "running")
        ]
        if not left or not all(name in self.seconds for name in left):
            return None
        return sum(sum(self.seconds[name]) / len(self.seconds[name]) for name in left)

    def view(self) -> Group:
        """Cells done of those planned, by task and method, and what is running."""
        counts, rest = self.counts(), self.remaining()
        title = f"{self.plan.name}: {counts['done']} of {counts['cells']} cells"
        title += "" if rest is None else f", about {rest / 60:.0f} min to go"
        running = [name for name, status in self.status.items() if status == "running"]
        words = [f"{name}, {time.monotonic() - self.started[name]:.0f} s" for name in running]
        return Group(Text(title, style="bold"), self._grid(), *map(Text, words))

    def _grid(self) -> Table:
        table = Table()
        cells: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.plan.cells:
            cells.setdefault((_place(cell), cell.method.name), []).append(cell)
        places, methods = (list(dict.fromkeys(key[axis] for key in cells)) for axis in (0, 1))
        upright = len(methods) <= max(len(places), WIDE)  # many methods go downwards
        table.add_column("")
        for name in methods if upright else places:
            table.add_column(name, justify="right")
        for row in places if upright else methods:
            keys = [(row, name) for name in methods] if upright else [(name, row) for name in places]
            table.add_row(row, *(self._told(cells.get(key, [])) for key in keys))
        return table

    def _told(self, cells: list[Cell]) -> str:
        """Such as 3/5, with a mark for what is running or has failed."""
        if not cells:
            return ""
        found = [self.status.get(str(cell)) for cell in cells]
        marks = ("…" if "running" in found else "") + ("!" if "failed" in found else "")
        return f"{found.count('done')}/{len(cells)}{marks}"


def _place(cell: Cell) -> str:
    """Encoder, task and number of training examples."""
    size = "all" if cell.train_size is None else f"{cell.train_size:,}"
    return f"{cell.folder.parts[0]}, {cell.folder.parts[1]}, {size}"
