"""Throughput mode: survivors of several batches wait for each other, so that deep segments run full batches too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
from offramp.criteria import Memory
from offramp.engine.batching import Encoding, PaddedBatch, batches
from offramp.engine.compaction import ActiveRows, CompactingEngine, DecisionBuffer
from offramp.engine.policy import Policy
from offramp.engine.segment_times import SegmentTimes
from offramp.engine.segments import Segments, State


class PoolingEngine(CompactingEngine[State]):
    """A compacting engine with a pool for every depth.

    Rows that stay at exit k either go on at once, or wait in the pool of segment k + 1 until a full batch of their
    padded length is there: whichever the measured times say is cheaper. When no more rows of that length can come, the
    pools run with what they hold. Nobody leaves for the sake of a batch: exits and answers are those of
    `CompactingEngine`. At most `batch_size - 1` rows wait at a depth.

    Args:
        segments: the model, cut at its exits.
        policy: when to leave.
        times: what running and joining cost on this machine.
        batch_size: rows of a full batch.
        pad_values: what to pad each input with, by name; 0 where not given.
        multiple: batches are padded to a multiple of so many tokens: more rows meet, and more padding is computed.
        workers: threads, each of which runs all rows of one padded length at a time.

    Raises:
        CriterionError: the policy was made for another model or task.
        ConfigError: `batch_size` or `multiple` is below 1, or times of another number of segments.

    Source: rebatching as DREX does for language models, without its involuntary exits.
    """

    window = 64  # batches sorted by length together: the more, the more often rows of one length meet

    def __init__(
        self,
        segments: Segments[State],
        policy: Policy,
        times: SegmentTimes,
        *,
        batch_size: int = 32,
        pad_values: Mapping[str, int] | None = None,
        multiple: int = 1,
        workers: int = 1,
    ) -> None:
        super().__init__(segments, policy, batch_size=batch_size, pad_values=pad_values, workers=workers)
        if multiple < 1:
            raise ConfigError(f"multiple must be at least 1, got {multiple}")
        if len(times.fixed) != len(segments.exit_layers):
            raise ConfigError(
                f"expected times of {len(segments.exit_layers)} segments, got {len(times.fixed)}: measure them on "
                "this model"
            )
        self.times = times
        self.multiple = multiple

    def _run_all(
        self,
        encodings: Sequence[Encoding],
        lengths: NDArray[np.int64],
        labels: NDArray[Any] | None,
        log: DecisionBuffer,
    ) -> int:
        count = 0

        def run(same: list[tuple[NDArray[np.intp], PaddedBatch]]) -> None:
            pools = _Pools(self, log, _padded(same[0]))
            for rows, batch in same:
                known = None if labels is None else labels[rows]
                pools.advance(0, ActiveRows(rows, self.segments.start(batch), {}, known))
            pools.drain()

        def by_length() -> Iterator[list[tuple[NDArray[np.intp], PaddedBatch]]]:
            nonlocal count
            alike = self.segments.reads_padding
            jobs = batches(encodings, self.batch_size, self.pad_values, lengths, self.multiple, alike=alike)
            for _, same in groupby(jobs, key=_padded):
                yield (found := list(same))
                count += len(found)

        self.workers.each(run, by_length())
        return count


def _padded(job: tuple[NDArray[np.intp], PaddedBatch]) -> int:
    """The length that a batch is padded to."""
    return job[1]["input_ids"].shape[1]


class _Pools:
    """Flights of one padded length that wait, by the segment they wait for."""

    def __init__(self, engine: PoolingEngine[Any], log: DecisionBuffer, length: int) -> None:
        self.engine = engine
        self.log = log
        self.length = length
        self.waiting: list[list[ActiveRows[Any]]] = [[] for _ in engine.segments.exit_layers]

    def advance(self, k: int, flight: ActiveRows[Any] | None) -> None:
        """Run a flight from segment `k` on, until nobody is left or the rest had better wait."""
        while flight is not None:
            if (flight := self.engine.step(k, flight, self.log)) is not None:
                k += 1
                flight = self._wait(k, flight)

    def _wait(self, k: int, flight: ActiveRows[Any]) -> ActiveRows[Any] | None:
        """The flight itself where waiting does not pay, a full batch where it completes one, else None."""
        full = self.engine.batch_size
        if not self.engine.times.waiting_pays(k, len(flight.rows), self.length, full):
            return flight
        self.waiting[k].append(flight)
        if sum(len(one.rows) for one in self.waiting[k]) < full:
            return None
        return self._gather(k)

    def drain(self) -> None:
        """Run all that wait, the shallowest first, so that they meet those who wait deeper."""
        for k in range(len(self.waiting)):
            if self.waiting[k]:
                rest = self.engine.step(k, self._gather(k), self.log)
                if rest is not None:
                    self.waiting[k + 1].append(rest)

    def _gather(self, k: int) -> ActiveRows[Any]:
        """All that wait for a segment, as one flight."""
        flights, self.waiting[k] = self.waiting[k], []
        return flights[0] if len(flights) == 1 else join(flights, self.engine.segments)


def join(flights: Sequence[ActiveRows[State]], segments: Segments[State]) -> ActiveRows[State]:
    """Several flights of one padded length that wait for the same segment, as one."""
    known = [flight.labels for flight in flights if flight.labels is not None]
    memory: Memory = {
        name: np.concatenate([flight.memory[name] for flight in flights]) for name in flights[0].memory
    }
    return ActiveRows(
        np.concatenate([flight.rows for flight in flights]),
        segments.join([flight.state for flight in flights]),
        memory,
        np.concatenate(known) if known else None,
    )
