"""Ways in which the system ends a process: Ctrl-C, a scheduler's SIGTERM, the SIGHUP of a closed terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
ONE_EVENT = 2.0  # seconds: a closed terminal sends SIGHUP twice, by the shell and by the system


class Stopped(KeyboardInterrupt):
    """A signal ended the work. Whatever handles Ctrl-C handles it alike.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the block, `handler` takes every signal that ends a process.

    A signal that is ignored, as under `nohup`, stays ignored. Outside the main thread nothing changes, since handlers
    cannot be set there.
    """
    previous: dict[int, Any] = {}
    try:
        for name in SIGNALS if threading.current_thread() is threading.main_thread() else ():
            number = getattr(signal, name, None)
            # None is the handler of a program that embeds Python: it could not be restored.
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous[number] = signal.signal(number, handler)
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


@contextmanager
def stopping() -> Iterator[None]:
    """Within the block, every signal that ends a process raises `Stopped`, as Ctrl-C does in Python."""
    last = float("-inf")

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now, before = time.monotonic(), last
        last = now
        if number == signal.SIGINT or now - before > ONE_EVENT:
            raise Stopped(number)

    with handled(stop):
        yield


class StopRequest:
    """The first signal that ends a process, noted instead of raised; a second Ctrl-C is raised at once.

    Attributes:
        number: of the signal; 0 for none.
    """

    number = 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.number and number == signal.SIGINT:
            raise Stopped(number)
        self.number = self.number or number


@contextmanager
def postponing() -> Iterator[StopRequest]:
    """Within the block, a signal that ends a process is noted; at its end `Stopped` is raised."""
    request = StopRequest()
    with handled(request.note):
        yield request
    if request.number:
        raise Stopped(request.number)
