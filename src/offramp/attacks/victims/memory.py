"""Costly work about a model that is done once in a process, whichever recipe or run asks for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LastResults(Generic[T]):
    """The last few results of some work, by a key that says everything the result depends on.

    Args:
        most: results kept.
    """

    def __init__(self, most: int = 8) -> None:
        self.most = most
        self.results: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result under a key, made on its first use."""
        if key not in self.results:
            self.results[key] = make()
        self.results.move_to_end(key)
        while len(self.results) > self.most:
            self.results.popitem(last=False)
        return self.results[key]
