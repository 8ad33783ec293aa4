"""A fair race: every peer answers the same batch in every round, and what it answers is scored too."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator
from offramp.engine.batching import Encoding
from offramp.engine.timing import Timing, time_interleaved
from offramp.export.peers import PEERS, Answers, Contest
from offramp.metrics import score

MIB = 2**20


def race(
    contest: Contest,
    encodings: Sequence[Encoding],
    labels: ArrayLike | None,
    *,
    metric: str = "accuracy",
    batch_sizes: Sequence[int] = (1, 8, 32),
    repeats: int = 30,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Time all peers against each other.

    Texts come in random order, as traffic does, and a timed call is one batch: percentiles are those of a request.

    Args:
        contest: what the peers are built from.
        encodings: the texts, at least as many as the largest batch.
        labels: for the score; None leaves it out.
        metric: key of `METRICS`.
        batch_sizes: texts a request.
        repeats: timed rounds; three before them are not.
        seed: of the order of the texts.

    Returns:
        A row for each peer and batch size: milliseconds a request at the median (`p50`), `p95` and `p99`, its
        quartiles `low` and `high`, `throughput` in texts a second, `speedup` over the first peer (the median over the
        rounds, which pair the two), the `score` on all texts, and `peak_mib` of a process that runs this peer alone.

    Raises:
        ConfigError: fewer texts than a batch holds, or batch sizes below 1.
    """
    if not batch_sizes or min(batch_sizes) < 1 or max(batch_sizes) > len(encodings):
        raise ConfigError(
            f"batch sizes must lie in 1..{len(encodings)}, the number of texts, got {list(batch_sizes)}"
        )
    peers = {name: build(contest) for name, build in PEERS.items()}
    memory = {name: peak_memory(contest, name, encodings[: max(batch_sizes)]) for name in peers}
    scores = {
        name: None if labels is None else scored(run, encodings, labels, metric)
        for name, run in peers.items()
    }
    rows = []
    for size in batch_sizes:
        calls = {name: requests(run, encodings, size, seed) for name, run in peers.items()}
        timings = time_interleaved(calls, repeats=repeats)
        first = next(iter(timings.values()))
        for name, timing in timings.items():
            known = {"peer": name, "batch_size": size}
            rest = {"score": scores[name], "peak_mib": memory[name]}
            rows.append({**known, **summary(timing, first, size), **rest})
    return rows


def requests(run: Answers, encodings: Sequence[Encoding], size: int, seed: int) -> Callable[[], object]:
    """A call that answers the next batch; all peers meet the same batches in the same order."""
    order = generator(seed, "bench", size).permutation(len(encodings))
    batches = [[encodings[row] for row in order[i : i + size]] for i in range(0, len(order) - size + 1, size)]
    following: Iterator[list[Encoding]] = cycle(batches)
    return lambda: run(next(following))


def summary(timing: Timing, first: Timing, size: int) -> dict[str, float]:
    """One peer's times in milliseconds a request."""
    names = {"p50": 0.5, "low": 0.25, "high": 0.75, "p95": 0.95, "p99": 0.99}
    return {
        **{name: 1e3 * float(np.quantile(timing.seconds, q)) for name, q in names.items()},
        "throughput": size * len(timing.seconds) / float(timing.seconds.sum()),
        "speedup": float(np.median(first.seconds / timing.seconds)),
    }


def scored(run: Answers, encodings: Sequence[Encoding], labels: ArrayLike, metric: str) -> float:
    """The metric over all texts, answered 32 at a time."""
    found: list[NDArray[Any]] = [run(encodings[i : i + 32]) for i in range(0, len(encodings), 32)]
    return score(metric, np.asarray(labels), np.concatenate(found))


def peak_memory(contest: Contest, name: str, encodings: Sequence[Encoding]) -> float:
    """Peak resident memory in MiB of a fresh process that builds one peer and answers one batch."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak, contest, name, list(encodings)).result()


def _peak(contest: Contest, name: str, encodings: Sequence[Encoding]) -> float:
    PEERS[name](contest)(encodings)
    status = Path("/proc/self/status")
    if status.exists():  # Linux lets a child inherit its parent's ru_maxrss; VmHWM is its own
        return (
            float(next(line for line in status.read_text().splitlines() if "VmHWM" in line).split()[1]) / 1024
        )
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes on macOS
