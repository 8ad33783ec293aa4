"""Many texts through one engine: whether its speed and memory stay constant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator
from offramp.inference.engine import Engine

STATM = Path("/proc/self/statm")
PAGE_MIB = 4096 / 2**20
MODES = {"batches": False, "pools": True}


def endless(texts: Sequence[Any], count: int, seed: int) -> Iterator[Any]:
    """`count` texts, in a new random order each time round."""
    done, turn = 0, 0
    while done < count:
        for row in generator(seed, "stream", turn).permutation(len(texts))[: count - done]:
            yield texts[row]
            done += 1
        turn += 1


def stream_series(
    engine: Engine,
    texts: Sequence[Any],
    *,
    count: int,
    every: float = 5.0,
    seed: int = 0,
    on_sample: Callable[[list[dict[str, float]]], object] = lambda rows: None,
) -> list[dict[str, float]]:
    """Stream texts through an engine and sample its speed and memory.

    Args:
        engine: the engine.
        texts: texts or pairs of texts, which repeat.
        count: number of texts to stream.
        every: seconds between two samples.
        seed: of their order.
        on_sample: called with the rows so far at each sample.

    Returns:
        A row per sample: `seconds` since the start, `texts` answered so far, `throughput` in texts a second since the
        last sample, and `resident_mib` of the process (NaN where the system does not report it).

    Raises:
        ConfigError: no texts, or a `count` below 1.
    """
    if not len(texts) or count < 1:
        raise ConfigError(f"streaming needs texts and a count of at least 1, got {len(texts)} texts, {count}")
    started = last = time.perf_counter()
    window = engine.compacting.window * engine.compacting.batch_size
    seen = 0
    rows = []
    for done, _ in enumerate(engine.stream(endless(texts, count, seed)), start=1):
        if done % window and done != count:  # answers come a window at a time
            continue
        now = time.perf_counter()
        if now - last >= every or done == count:
            rows.append(
                {
                    "seconds": now - started,
                    "texts": done,
                    "throughput": (done - seen) / max(now - last, 1e-9),
                    "resident_mib": resident_mib(),
                }
            )
            on_sample(rows)
            last, seen = now, done
    return rows


def resident_mib() -> float:
    """Memory of this process now, in MiB; NaN where the system does not report it."""
    if not STATM.exists():
        return float("nan")
    return int(STATM.read_text().split()[1]) * PAGE_MIB


def flatness(rows: Sequence[dict[str, float]], settled: float = 60.0) -> dict[str, float]:
    """The drift of speed and memory after a settling time.

    Returns:
        `throughput` in texts a second over all; `throughput_change`, the second half's median against the first's,
        less 1; `memory_growth_mib`, of the last sample over the first, both after `settled` seconds (or, in a shorter
        run, after a fifth of it).
    """
    settled = min(settled, rows[-1]["seconds"] / 5)
    late = [row for row in rows if row["seconds"] >= settled]
    middle = (late[0]["seconds"] + late[-1]["seconds"]) / 2
    halves = [
        [row["throughput"] for row in late if (row["seconds"] > middle) == second] for second in (False, True)
    ]
    change = float(np.median(halves[1]) / np.median(halves[0]) - 1) if all(halves) else 0.0
    return {
        "throughput": rows[-1]["texts"] / rows[-1]["seconds"],
        "throughput_change": change,
        "memory_growth_mib": late[-1]["resident_mib"] - late[0]["resident_mib"],
    }
