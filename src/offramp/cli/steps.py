"""A long job in steps: which one runs, and at all times how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from rich.live import Live
from rich.text import Text

from offramp._core.progress import console, duration, quiet
from offramp._core.text import one_line
from offramp.cli.common import note

PRIOR = 10.0  # seconds of usual pace that an estimate starts from: the first steps may be short ones


@dataclass(frozen=True)
class Step:
    """A part of a job.

    Attributes:
        title: one line.
        seconds: about how long it takes on two idle cores; only the ratio to those of other steps matters.
        action: what runs.
    """

    title: str
    seconds: float
    action: Callable[[], object]


class Countdown:
    """Estimates how long the rest of a job takes, from what its steps usually take and how fast they were here.

    Args:
        usual: seconds that each step usually takes, in order.
        clock: returns seconds.
    """

    def __init__(self, usual: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self.usual, self.clock = list(usual), clock
        self.finished = 0
        self.began = self.step_began = clock()

    def finish_step(self) -> float:
        """Note that the step that runs has ended; returns the seconds it took."""
        before, self.step_began = self.step_began, self.clock()
        self.finished += 1
        return self.step_began - before

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.began

    def remaining(self) -> float:
        """Seconds that the rest may take.

        The steps that have ended give the pace of this machine. A running step that takes longer than that slows it.
        """
        if self.finished == len(self.usual):
            return 0.0
        expected = sum(self.usual[: self.finished])
        now, *later = self.usual[self.finished :]
        ended = (self.step_began - self.began + PRIOR) / (expected + PRIOR)
        pace = max(ended, (self.elapsed() + PRIOR) / (expected + now + PRIOR))
        spent = self.clock() - self.step_began
        return max(now * pace - spent, 0.0) + sum(later) * pace


def run_steps(steps: Sequence[Step], name: str) -> float:
    """Run steps and show which one runs, how long each took, and how long the rest may take; returns the seconds."""
    countdown = Countdown([step.seconds for step in steps])

    def view() -> Text:
        step = f"{name}: step {min(countdown.finished + 1, len(steps))} of {len(steps)}"
        times = f"{duration(countdown.elapsed())}, about {duration(countdown.remaining())} to go"
        return Text(f"{step}, {times}", style="bold")

    shown = console.is_terminal and not quiet.get()
    # A line below the bars of the steps; what prints to stdout must not pass through it.
    live = Live(
        get_renderable=view, console=console, refresh_per_second=2, transient=True, redirect_stdout=False
    )
    with live if shown else nullcontext():
        for number, step in enumerate(steps, start=1):
            title = f"[{number}/{len(steps)}] {step.title}"
            if shown:
                console.rule(one_line(title), align="left")
            else:
                note(f"{title} (about {duration(countdown.remaining())} to go)")
            step.action()
            note(f"[{number}/{len(steps)}] done in {duration(countdown.finish_step())}")
    return countdown.elapsed()
