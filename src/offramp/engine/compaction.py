"""The engine, which runs a batch segment by segment and drops the rows that leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp.engine.active_rows import ActiveRows, DecisionBuffer, join_rows, run_segment
from offramp.engine.agreement import near_threshold
from offramp.engine.batching import Encoding, Numbered, Plan, batches, check_batch_size, pad, token_counts
from offramp.engine.cores import Cores
from offramp.engine.policy import Decisions, Policy, check_caps
from offramp.engine.segment_times import SegmentTimes, plan_batches
from offramp.engine.segments import Segments, State

T = TypeVar("T")
# Told the numbers of texts that have left, and a function that gives the decisions on some that have.
Left = Callable[[NDArray[np.intp], Callable[[NDArray[np.intp]], Decisions]], None]
FIRST_ROWS = 1024  # texts that layer 0 reads at once: bounds the memory


@dataclass(frozen=True)
class FusedAnswer:
    """One text's answer: exit (0-based), logits `(1, classes)`, calibrated probability, and score."""

    exit: int
    logits: NDArray[np.floating]
    probability: float
    score: float


@dataclass(frozen=True)
class Stats:
    """Facts about a run of an engine."""

    rows: tuple[int, ...]  # number of rows that left at each exit
    batches: int = 0
    near_threshold: int = 0  # rows with a score within float noise of the threshold at an exit they passed


class CompactingEngine(Generic[State]):
    """Runs segments under a policy. Rows that leave are removed, so later segments run only on the rest.

    Several threads may share one engine; `stats` then describes the run that ended last.

    Args:
        segments: the model, cut at its exits.
        policy: when to leave.
        batch_size: rows run at once; exits and answers do not depend on it.
        pad_values: the padding value of each input, by name; 0 by default.
        fused: answers a single text, or every text if the batch size is 1; see `FusedGraph`.
        times: of the segments in one thread. Batches are then cut for the least time, so texts of very different
            lengths do not share one.
        workers: threads that run batches in parallel. Each call of a segment should then stay in its own thread.

    Attributes:
        stats: of the last `run`.

    Raises:
        CriterionError: the policy was made for another model or task.
        ConfigError: `batch_size` is below 1.
    """

    window = 16  # batches of a stream that are sorted by length together

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
        self.first = int(segments.exit_layers[0] == 0)  # the first exit that needs batches
        self.plan: Plan | None = None
        if times is not None:
            ahead = times.since(self.first)
            self.plan = partial(plan_batches, batch_size=batch_size, times=ahead, workers=workers)
        self.stats = Stats((0,) * len(segments.exit_layers))
        self._flops_at = lru_cache(maxsize=None)(lambda length: segments.flops(np.array([length]))[0][0])
        self._layers = np.asarray(segments.exit_layers, dtype=np.int64)

    def run(
        self,
        encodings: Sequence[Encoding],
        labels: ArrayLike | None = None,
        caps: NDArray[np.intp] | None = None,
        left: Left | None = None,
    ) -> Decisions:
        """Decide on texts.

        Args:
            encodings: token ids without padding, one dict per text.
            labels: true labels `(examples,)`; only the `oracle` criterion reads them.
            caps: the exit, 0-based, at which each text leaves at the latest `(examples,)`.
            left: called each time that some texts leave while others may still run, maybe in several threads.

        Returns:
            `Decisions` in the order of `encodings`.

        Raises:
            DataError: encodings that do not match each other, or a wrong number of labels or caps.
        """
        truth = None if labels is None else np.asarray(labels)
        if truth is not None and truth.shape != (len(encodings),):
            raise DataError(
                f"expected one label for each of the {len(encodings)} texts, got shape {truth.shape}: "
                "leave labels out unless the criterion is 'oracle'"
            )
        check_caps(caps, len(encodings))
        if caps is not None and (caps >= len(self._layers) - 1).all():
            caps = None  # every text leaves at the last exit anyway
        lengths = token_counts(encodings)
        alone = 1 in (len(encodings), self.batch_size)
        if self.fused is not None and truth is None and caps is None and alone:
            return self._run_fused([self.fused(encoding) for encoding in encodings], lengths)

        def decide(rows: NDArray[np.intp] | slice = slice(None)) -> Decisions:
            return buffer.decisions(self.segments, self.policy, lengths, rows)

        buffer = DecisionBuffer(len(encodings), left and (lambda rows: left(rows, decide)))
        waiting = ActiveRows(np.arange(len(encodings)), None, {}, truth, caps=caps)
        if self.first:  # what leaves at layer 0 is in no batch, so the batches stay full
            waiting = self._run_first(encodings, waiting, buffer)
        self._run_all(self._batches(encodings, lengths, waiting.rows, buffer), waiting, buffer)
        self._count(buffer.exit, buffer.batches, buffer.near)
        return decide()

    def _run_fused(self, answers: Sequence[FusedAnswer], lengths: NDArray[np.int64]) -> Decisions:
        """Decisions of the fused graph, which gives the score of the last exit only."""
        exit = np.array([answer.exit for answer in answers], dtype=np.intp)
        score = np.array([answer.score for answer in answers], dtype=np.float64)
        flops = [self._flops_at(n)[k] for n, k in zip(lengths.tolist(), exit.tolist(), strict=True)]
        near = near_threshold(self.policy.criterion, score, exit) & (exit < len(self._layers) - 1)
        self._count(exit, len(answers), near)
        return Decisions(
            exit=exit,
            layer=self._layers[exit],
            prediction=np.array([answer.logits.argmax() for answer in answers], dtype=np.int64),
            probability=np.array([answer.probability for answer in answers], dtype=np.float64),
            score=score,
            flops=np.array(flops),
            answer_exit=exit,
            logits=np.concatenate([answer.logits for answer in answers]),
        )

    def _count(self, exit: NDArray[np.intp], batches: int, near: NDArray[np.bool_]) -> None:
        rows = tuple(np.bincount(exit, minlength=len(self._layers)).tolist())
        self.stats = Stats(rows, batches, int(near.sum()))

    def _run_first(
        self, encodings: Sequence[Encoding], rows: ActiveRows[None], buffer: DecisionBuffer
    ) -> ActiveRows[None]:
        """Ask layer 0 about all texts. Return those that stay."""
        staying = [rows.subset(np.arange(0), None)]
        for window in np.split(rows.rows, range(FIRST_ROWS, len(encodings), FIRST_ROWS)):
            state = self.segments.start(pad([encodings[row] for row in window], self.pad_values))
            active = run_segment(self.segments, self.policy, 0, rows.subset(window, state), buffer)
            if active is not None:
                staying.append(active.without_state())
        return join_rows(staying[1:] or staying, None)

    def _batches(
        self,
        encodings: Sequence[Encoding],
        lengths: NDArray[np.int64],
        rows: NDArray[np.intp],
        buffer: DecisionBuffer,
    ) -> Iterator[Numbered]:
        """Batches of some rows; they are numbered among these rows."""
        alike = self.segments.reads_padding
        chosen = [encodings[row] for row in rows.tolist()]
        for batch in batches(chosen, self.batch_size, self.pad_values, lengths[rows], self.plan, alike):
            buffer.batches += 1
            yield batch

    def _run_all(self, source: Iterator[Numbered], waiting: ActiveRows[None], buffer: DecisionBuffer) -> None:
        """Decide on all batches."""

        def run(numbered: Numbered) -> None:
            active: ActiveRows[State] | None = self._start(numbered, waiting)
            for k in range(self.first, len(self.segments.exit_layers)):
                assert active is not None, "the last exit takes all"
                if (active := run_segment(self.segments, self.policy, k, active, buffer)) is None:
                    break

        self.workers.each(run, source)

    def _start(self, numbered: Numbered, waiting: ActiveRows[None]) -> ActiveRows[State]:
        """A batch of rows that wait for the first layer."""
        numbers, batch = numbered
        return waiting.subset(numbers, self.segments.start(batch))


class Workers:
    """Threads that take items from one source until it is empty, each on cores of its own (`Cores`).

    Args:
        count: number of threads, including the caller's.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._cores = Cores(count)
        self._pool = ThreadPoolExecutor(count - 1, "offramp", self._cores.stay) if count > 1 else None

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

        with self._cores.caller():
            others = [self._pool.submit(work) for _ in range(self.count - 1)] if self._pool else []
            try:
                work()
            finally:
                for other in others:
                    other.result()
