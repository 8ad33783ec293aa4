"""Where to cut a request into batches: little padding, few batches, and work for every thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offramp.engine.segment_times import SegmentTimes

PIECES = 2  # batches a thread at least, where cutting is cheap: exits make some finish early


def plan_batches(
    lengths: NDArray[np.int64], batch_size: int, times: SegmentTimes, workers: int = 1
) -> list[int]:
    """Cut rows sorted by length into consecutive batches that take the least time.

    Each batch is padded to its longest row. Fewer rows of like length waste less on padding, more batches pay more
    often for starting a segment; with several threads no batch may hold more than its share of the whole.

    Args:
        lengths: tokens of each row `(rows,)`, at least one, the longest first.
        batch_size: rows of a batch at most.
        times: what segments cost on this machine, in one thread.
        workers: threads that run batches side by side.

    Returns:
        The first row of each batch.
    """
    starts, total = _cheapest(lengths, batch_size, times, np.inf)
    if workers == 1:
        return starts
    return _cheapest(lengths, batch_size, times, total / (PIECES * workers))[0]


def _cheapest(
    lengths: NDArray[np.int64], batch_size: int, times: SegmentTimes, limit: float
) -> tuple[list[int], float]:
    """The cuts with the least sum of milliseconds, and that sum; a batch of several rows keeps within `limit`."""
    fixed, per_token, per_pair = (sum(values) for values in (times.fixed, times.per_token, times.per_pair))
    row = lengths * (per_token + lengths * per_pair)  # what a row costs in a batch as long as it is
    best, came_from = np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, dtype=np.intp)
    for end in range(1, len(lengths) + 1):
        first = np.arange(max(0, end - batch_size), end)
        ms = fixed + (end - first) * row[first]
        ms[:-1][ms[:-1] > limit] = np.inf
        totals = best[first] + ms
        choice = int(totals.argmin())
        best[end], came_from[end] = totals[choice], first[choice]
    starts, end = [], len(lengths)
    while end:
        end = int(came_from[end])
        starts.append(end)
    return starts[::-1], float(best[-1])
