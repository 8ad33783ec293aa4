"""What people see while they wait, on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from offramp._core.text import one_line

T = TypeVar("T")
Update = Callable[[int, int | None, str], None]  # steps done, steps in all if known, and a remark

EVERY = 10.0  # seconds between plain lines
REDRAWN = 0.5  # seconds between two drawings of a bar beside work that is timed
BAR = 16  # characters: a line must fit 80 columns
ROOM, SHORTEST = 36, 8  # characters of a title and a remark together; of a remark beside a long title

# All live lines share one console, since a terminal has one cursor. Names come from data, so no text is markup.
console = Console(stderr=True, markup=False, emoji=False, highlight=False)
quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quietly(*, everything: bool = False) -> Iterator[None]:
    """Show no progress and no remarks, and with `everything` no tables either."""
    token, before = quiet.set(True), console.quiet
    console.quiet = everything
    try:
        yield
    finally:
        console.quiet = before
        quiet.reset(token)


@contextmanager
def progress(
    title: str, total: int | None = None, *, show: bool = True, timed: bool = False
) -> Iterator[Update]:
    """Yield a function that shows how far the work is and how long the rest may take.

    Args:
        title: of the work, in a few words.
        total: number of steps; None until an update gives it, and for work of unknown length.
        show: False for silence.
        timed: the steps are being timed, so the bar is drawn between them, and no thread of it runs beside them.
    """
    title = one_line(title)
    if not show or quiet.get():
        yield _silent
    elif not console.is_terminal:
        yield _plain_lines(title, total)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(BAR),
            MofNCompleteColumn(),
            TextColumn(
                "{task.fields[remark]}",
                markup=False,
                table_column=Column(no_wrap=True, max_width=max(ROOM - len(title), SHORTEST)),
            ),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        # What prints to stdout, such as the answers of `offramp predict`, must not pass through the display.
        display = Progress(
            *columns, console=console, transient=True, redirect_stdout=False, auto_refresh=not timed
        )
        with display as bar:
            task = bar.add_task(title, total=total, remark="")
            drawn = -REDRAWN

            def update(done: int, total: int | None, remark: str) -> None:
                nonlocal drawn
                bar.update(task, completed=done, total=total, remark=remark)
                if timed and (now := time.monotonic()) - drawn >= REDRAWN:
                    drawn = now
                    bar.refresh()

            yield update


def track(steps: Sequence[T], title: str, *, show: bool = True, timed: bool = False) -> Iterable[T]:
    """Iterate with a bar; arguments as in `progress`."""
    with progress(title, len(steps), show=show, timed=timed) as update:
        for done, step in enumerate(steps):
            yield step
            update(done + 1, None, "")


def duration(seconds: float) -> str:
    """A time for people, such as 8 s or 2 min 05 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


def _silent(done: int, total: int | None, remark: str) -> None:
    """An update that shows nothing."""


def _plain_lines(title: str, total: int | None) -> Update:
    """An update for a pipe or a file: a line every ten seconds."""
    in_all, began, printed = total, time.monotonic(), time.monotonic()
    first: int | None = None  # a resumed run begins in the middle

    def update(done: int, total: int | None, remark: str) -> None:
        nonlocal in_all, printed, first
        in_all, first, now = total or in_all, done if first is None else first, time.monotonic()
        if now - printed < EVERY:
            return
        printed, spent = now, now - began
        count = f"{done} of {in_all}" if in_all else str(done or "")
        words = [count, remark, duration(spent)]
        if in_all and done > first:
            words.append(f"about {duration(spent * (in_all - done) / (done - first))} to go")
        console.print(one_line(f"{title}: {', '.join(filter(None, words))}"), soft_wrap=True)

    return update
