"""Progress of an attack: a bar on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

Report = Callable[[int, int], None]  # examples done, examples in all
EVERY = 10.0  # seconds between plain lines


@contextmanager
def reporting(progress: Report | bool) -> Iterator[Report]:
    """Yield a function to call with (done, total) after each group.

    Args:
        progress: a function to call instead, True for a bar or lines on stderr, False for silence.
    """
    if callable(progress):
        yield progress
        return
    console = Console(stderr=True)
    if not progress:
        yield lambda done, total: None
    elif not console.is_terminal:
        yield _lines(console)
    else:
        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("attack", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(console: Console) -> Report:
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY or done == total:
            console.print(f"attack: {done} of {total} examples, {now - started:.0f} s", highlight=False)
            last = now

    return report
