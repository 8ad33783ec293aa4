"""Threads that run batches side by side: one thread per core, each with whole batches of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """Threads that take items from one source until it is empty.

    Args:
        count: number of threads, including the caller's.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "offramp") if count > 1 else None

    def each(self, function: Callable[[T], object], items: Iterable[T]) -> None:
        """Call a function once with every item; items are made one at a time, in their order.

        Raises:
            The error of any call, once all threads have stopped.
        """
        source, lock = iter(items), Lock()

        def work() -> None:
            while True:
                with lock:
                    item = next(source, None)
                if item is None:
                    return
                function(item)

        others = [self._pool.submit(work) for _ in range(self.count - 1)] if self._pool else []
        try:
            work()
        finally:
            for other in others:
                other.result()
