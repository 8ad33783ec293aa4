"""Fair wall-clock times: after a warm-up, interleaved, as medians with their spread."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError


@dataclass(frozen=True)
class Timing:
    """Times of one callable: wall seconds `(repeats,)` in the order of the rounds.

    Round r of callables timed together ran at about the same time, so they may be compared in pairs.
    """

    seconds: NDArray[np.float64]

    @property
    def p50(self) -> float:
        """Median in seconds."""
        return float(np.quantile(self.seconds, 0.5))

    @property
    def p95(self) -> float:
        """95th percentile in seconds."""
        return float(np.quantile(self.seconds, 0.95))

    def __str__(self) -> str:
        return f"{1e3 * self.p50:.2f} ms (p95 {1e3 * self.p95:.2f} ms, {len(self.seconds)} repeats)"


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    rest: float = 0.0,
    lead: int = 0,
    watch: Callable[[int], object] = lambda done: None,
) -> dict[str, Timing]:
    """Time callables against each other.

    All of them run in every round, and each round starts with the next one. A machine that slows down half-way, or a
    cache that the previous call left warm, then affects all of them alike. The garbage collector is off during the
    rounds, as in `timeit`.

    Args:
        calls: what to time, by name; on return each must have finished its work (on a GPU: synchronised).
        repeats: timed rounds.
        warmup: untimed rounds before them.
        clock: seconds from any start; wall time by default.
        rest: seconds of sleep before each call, to let old threads stop spinning.
        lead: untimed calls right before each timed one, which warm the caches, as in a program with only this call.
        watch: called after each round with the number of rounds done.

    Returns:
        One `Timing` per name.

    Raises:
        ConfigError: no callables, `repeats` below 1, or `warmup` below 0.
    """
    if not calls or repeats < 1 or warmup < 0:
        raise ConfigError(
            f"timing needs something to call, repeats >= 1 and warmup >= 0, "
            f"got {len(calls)} calls, repeats={repeats}, warmup={warmup}"
        )
    names = list(calls)
    seconds = {name: np.empty(repeats) for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for r in range(-warmup, repeats):
            start = r % len(names)
            for name in names[start:] + names[:start]:
                if rest:
                    time.sleep(rest)
                for _ in range(lead):
                    calls[name]()
                before = clock()
                calls[name]()
                if r >= 0:
                    seconds[name][r] = clock() - before
            watch(max(r + 1, 0))
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(values) for name, values in seconds.items()}
