"""Cores of its own for each thread that works on one request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

_PLACED = Lock()  # held by the one caller in the process that keeps to its cores


class Cores:
    """The cores of this process, dealt out to several threads that share a request.

    In a virtual machine, Linux may wake a thread on the core of the thread that called it while another core is idle,
    and part the two only after some 4 ms. Until then they take turns, or wait for each other in vain. Where a process
    has many cores, each thread has several to choose from, so processes do not meet on a few.

    Args:
        threads: number of threads.

    Attributes:
        sets: the cores of each thread, the first of the caller's. Empty for a single thread, for more threads than
            cores, and on systems that do not place threads.
    """

    def __init__(self, threads: int) -> None:
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        shared = 1 < threads <= len(usable)
        self.sets = [frozenset(usable[k::threads]) for k in range(threads)] if shared else []
        self._others = iter(self.sets[1:])

    @contextmanager
    def caller(self) -> Iterator[None]:
        """Keep the calling thread on the first set for a while, unless another caller in this process is kept."""
        if not self.sets or not _PLACED.acquire(blocking=False):
            yield
            return
        before = None
        try:
            with suppress(OSError):  # the system forbids it, or has taken cores away since
                before = os.sched_getaffinity(0)
                os.sched_setaffinity(0, self.sets[0] & before)
            yield
        finally:
            if before is not None:
                with suppress(OSError):
                    os.sched_setaffinity(0, before)
            _PLACED.release()

    def stay(self) -> None:
        """Keep the calling thread, the next one beside the caller, on its set from now on."""
        if (cores := next(self._others, None)) is not None:
            with suppress(OSError):
                os.sched_setaffinity(0, cores)

    def for_onnxruntime(self) -> str:
        """The sets of all threads but the caller's as ONNX Runtime reads them; it counts cores from 1."""
        return ";".join(",".join(str(core + 1) for core in sorted(cores)) for cores in self.sets[1:])
