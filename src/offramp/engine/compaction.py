"""The engine: runs a batch segment by segment, and drops the rows that leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp.engine.active_rows import ActiveRows, DecisionBuffer, run_segment
from offramp.engine.agreement import near_threshold
from offramp.engine.batching import (
    Encoding,
    Numbered,
    PaddedBatch,
    Plan,
    batches,
    check_batch_size,
    token_counts,
    windows,
)
from offramp.engine.policy import Decisions, Policy
from offramp.engine.segment_times import SegmentTimes, plan_batches
from offramp.engine.segments import Segments, State

T = TypeVar("T")


@dataclass(frozen=True)
class FusedAnswer:
    """One text's answer: exit (0-based), logits `(1, classes)`, calibrated probability, and score."""

    exit: int
    logits: NDArray[np.floating]
    probability: float
    score: float


@dataclass(frozen=True)
class Stats:
    """What an engine did.

    Attributes:
        rows: how many rows left at each exit.
        batches: how many batches were run.
        near_threshold: rows whose score came within float noise of the threshold at an exit they passed; see
            `agreement.near_threshold`.
    """

    rows: tuple[int, ...]
    batches: int = 0
    near_threshold: int = 0

    def __add__(self, other: Stats) -> Stats:
        rows = tuple(a + b for a, b in zip(self.rows, other.rows, strict=True))
        return Stats(rows, self.batches + other.batches, self.near_threshold + other.near_threshold)


class CompactingEngine(Generic[State]):
    """Runs segments under a policy; rows that leave are taken out, so later segments run on the rest alone.

    Several threads may share one engine; `stats` then describes whichever run ended last.

    Args:
        segments: the model, cut at its exits.
        policy: when to leave.
        batch_size: rows run at once; exits and answers do not depend on it.
        pad_values: the padding value of each input, by name; 0 by default.
        fused: answers a text that comes alone, or every text where the batch size is 1; see `FusedGraph`.
        times: of the segments in one thread. Batches are then cut so that they take the least time: texts of very
            different lengths do not share one.
        workers: threads that run batches side by side. Each call of a segment should then stay in its own thread.

    Attributes:
        stats: of the last `run`, or of the last `stream` so far.

    Raises:
        CriterionError: the policy was made for another model or task.
        ConfigError: `batch_size` is below 1.
    """

    window = 16  # batches that a stream sorts by length together

    def __init__(
        self,
        segments: Segments[State],
        policy: Policy,
        *,
        batch_size: int = 32,
        pad_values: Mapping[str, int] | None = None,
        fused: Callable[[Encoding], FusedAnswer] | None = None,
        times: SegmentTimes | None = None,
        workers: int = 1,
    ) -> None:
        policy.check(segments.exit_layers, segments.kind, segments.gates)
        self.segments = segments
        self.policy = policy
        self.batch_size = check_batch_size(batch_size)
        self.pad_values = dict(pad_values or {})
        self.fused = fused
        self.workers = Workers(workers)
        self.plan: Plan | None = None
        if times is not None:
            self.plan = partial(plan_batches, batch_size=batch_size, times=times, workers=workers)
        self.stats = self._no_stats()
        self._flops_at = lru_cache(maxsize=None)(lambda length: segments.flops(np.array([length]))[0][0])
        self._layers = np.asarray(segments.exit_layers, dtype=np.int64)

    def run(self, encodings: Sequence[Encoding], labels: ArrayLike | None = None) -> Decisions:
        """Decide on texts.

        Args:
            encodings: token ids without padding, one dict per text.
            labels: true labels `(examples,)`, which only the `oracle` criterion reads.

        Returns:
            `Decisions` in the order of `encodings`.

        Raises:
            DataError: encodings that do not fit together, or another number of labels.
        """
        decisions, self.stats = self._decide(encodings, labels)
        return decisions

    def stream(self, encodings: Iterable[Encoding]) -> Iterator[Decisions]:
        """Decide on any number of texts in bounded memory.

        Args:
            encodings: read when needed, `window * batch_size` at a time, and sorted by length within such a window.

        Yields:
            `Decisions` of consecutive stretches, in the order of `encodings`.
        """
        self.stats = self._no_stats()
        for window in windows(encodings, self.window * self.batch_size):
            decisions, stats = self._decide(window, None)
            self.stats += stats
            yield decisions

    def _no_stats(self) -> Stats:
        return Stats((0,) * len(self.segments.exit_layers))

    def _decide(self, encodings: Sequence[Encoding], labels: ArrayLike | None) -> tuple[Decisions, Stats]:
        truth = None if labels is None else np.asarray(labels)
        if truth is not None and truth.shape != (len(encodings),):
            raise DataError(
                f"expected one label for each of the {len(encodings)} texts, got shape {truth.shape}: "
                "leave labels out unless the criterion is 'oracle'"
            )
        lengths = token_counts(encodings)
        if self.fused is not None and truth is None and 1 in (len(encodings), self.batch_size):
            return self._run_fused([self.fused(encoding) for encoding in encodings], lengths)
        buffer = DecisionBuffer(len(encodings))
        self._run_all(self._batches(encodings, lengths, buffer), truth, buffer)
        stats = Stats(self._exit_counts(buffer.exit), buffer.batches, int(buffer.near.sum()))
        return buffer.decisions(self.segments, self.policy, lengths), stats

    def _run_fused(
        self, answers: Sequence[FusedAnswer], lengths: NDArray[np.int64]
    ) -> tuple[Decisions, Stats]:
        """Decisions of the fused graph, which gives the score of the last exit only."""
        exit = np.array([answer.exit for answer in answers], dtype=np.intp)
        score = np.array([answer.score for answer in answers], dtype=np.float64)
        flops = [self._flops_at(n)[k] for n, k in zip(lengths.tolist(), exit.tolist(), strict=True)]
        decisions = Decisions(
            exit=exit,
            layer=self._layers[exit],
            prediction=np.array([answer.logits.argmax() for answer in answers], dtype=np.int64),
            probability=np.array([answer.probability for answer in answers], dtype=np.float64),
            score=score,
            flops=np.array(flops),
        )
        near = near_threshold(self.policy.criterion, score) & (exit < len(self._layers) - 1)
        return decisions, Stats(self._exit_counts(exit), len(answers), int(near.sum()))

    def _exit_counts(self, exit: NDArray[np.intp]) -> tuple[int, ...]:
        """How many rows left at each exit."""
        return tuple(np.bincount(exit, minlength=len(self._layers)).tolist())

    def _batches(
        self, encodings: Sequence[Encoding], lengths: NDArray[np.int64], buffer: DecisionBuffer
    ) -> Iterator[Numbered]:
        alike = self.segments.reads_padding
        for batch in batches(encodings, self.batch_size, self.pad_values, lengths, self.plan, alike):
            buffer.batches += 1
            yield batch

    def _run_all(
        self, source: Iterator[Numbered], labels: NDArray[Any] | None, buffer: DecisionBuffer
    ) -> None:
        """Decide on all batches."""

        def run(numbered: Numbered) -> None:
            active: ActiveRows[State] | None = self._start(*numbered, labels)
            for k in range(len(self.segments.exit_layers)):
                assert active is not None, "the last exit takes all"
                if (active := run_segment(self.segments, self.policy, k, active, buffer)) is None:
                    break

        self.workers.each(run, source)

    def _start(
        self, rows: NDArray[np.intp], batch: PaddedBatch, labels: NDArray[Any] | None
    ) -> ActiveRows[State]:
        """A batch before the first segment."""
        return ActiveRows(rows, self.segments.start(batch), {}, None if labels is None else labels[rows])


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
