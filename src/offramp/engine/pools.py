"""Throughput mode: rows of several batches wait for each other, so that deep segments run full batches too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from offramp._core.errors import ConfigError
from offramp.engine.active_rows import ActiveRows, DecisionBuffer, join_rows, run_segment
from offramp.engine.batching import Numbered
from offramp.engine.compaction import CompactingEngine
from offramp.engine.policy import Policy
from offramp.engine.segment_times import SegmentTimes
from offramp.engine.segments import Segments, State


class PoolingEngine(CompactingEngine[State]):
    """A compacting engine with a pool for every depth.

    Rows that stay at exit k either continue at once, or wait in the pool of segment k + 1 for a full batch of their
    padded length, whichever is cheaper by the measured times. When no more rows of that length can come, the pools run
    their remaining rows. Waiting changes no decision: exits and answers are those of `CompactingEngine`. At most
    `batch_size - 1` rows wait at a depth.

    Args:
        segments, policy, batch_size, pad_values: as in `CompactingEngine`.
        times: of running and joining on this machine.
        workers: number of threads; each runs all rows of one padded length at a time.

    Raises:
        CriterionError: the policy was made for another model or task.
        ConfigError: `batch_size` is below 1, or the times are of another number of segments.

    Source: rebatching as DREX does for language models, without its involuntary exits.
    """

    window = 64  # batches sorted by length together; with more of them, rows of one length meet more often

    def __init__(
        self,
        segments: Segments[State],
        policy: Policy,
        times: SegmentTimes,
        *,
        batch_size: int = 32,
        pad_values: Mapping[str, int] | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(segments, policy, batch_size=batch_size, pad_values=pad_values, workers=workers)
        if len(times.fixed) != len(segments.exit_layers):
            raise ConfigError(
                f"expected times of {len(segments.exit_layers)} segments, got {len(times.fixed)}: measure them on "
                "this model"
            )
        self.times = times

    def _run_all(self, source: Iterator[Numbered], waiting: ActiveRows[None], buffer: DecisionBuffer) -> None:
        def run(alike: list[Numbered]) -> None:
            pools = _Pools(self, buffer, _padded_length(alike[0]))
            for numbered in alike:
                pools.advance(self.first, self._start(numbered, waiting))
            pools.drain()

        self.workers.each(run, (list(group) for _, group in groupby(source, key=_padded_length)))


def _padded_length(numbered: Numbered) -> int:
    return numbered[1]["input_ids"].shape[1]


class _Pools:
    """Rows of one padded length that wait, by the segment they wait for."""

    def __init__(self, engine: PoolingEngine[Any], buffer: DecisionBuffer, length: int) -> None:
        self.engine = engine
        self.buffer = buffer
        self.length = length
        self.waiting: list[list[ActiveRows[Any]]] = [[] for _ in engine.segments.exit_layers]

    def advance(self, k: int, active: ActiveRows[Any] | None) -> None:
        """Run rows from segment `k` until all have left or waiting is cheaper."""
        while active is not None:
            if (active := self._step(k, active)) is not None:
                k += 1
                active = self._wait(k, active)

    def drain(self) -> None:
        """Run all waiting rows, the shallowest first, so they join rows that wait deeper."""
        for k in range(len(self.waiting)):
            if self.waiting[k] and (rest := self._step(k, self._gather(k))) is not None:
                self.waiting[k + 1].append(rest)

    def _step(self, k: int, active: ActiveRows[Any]) -> ActiveRows[Any] | None:
        return run_segment(self.engine.segments, self.engine.policy, k, active, self.buffer)

    def _wait(self, k: int, active: ActiveRows[Any]) -> ActiveRows[Any] | None:
        """The rows themselves if waiting costs more, a full batch if they complete one, else None."""
        full = self.engine.batch_size
        if not self.engine.times.waiting_pays(k, len(active.rows), self.length, full):
            return active
        self.waiting[k].append(active)
        if sum(len(group.rows) for group in self.waiting[k]) < full:
            return None
        return self._gather(k)

    def _gather(self, k: int) -> ActiveRows[Any]:
        """Take all rows that wait for a segment."""
        groups, self.waiting[k] = self.waiting[k], []
        if len(groups) == 1:
            return groups[0]
        return join_rows(groups, self.engine.segments.join([group.state for group in groups]))
