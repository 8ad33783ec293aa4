"""The engine: runs a batch segment by segment, and drops the rows that leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp.criteria import Memory
from offramp.engine.agreement import near_threshold
from offramp.engine.batching import (
    Encoding,
    PaddedBatch,
    Plan,
    batches,
    check_batch_size,
    token_counts,
    windows,
)
from offramp.engine.planning import plan_batches
from offramp.engine.policy import Decisions, Policy, softmax
from offramp.engine.segments import Segments, State
from offramp.engine.workers import Workers

if TYPE_CHECKING:
    from offramp.engine.segment_times import SegmentTimes

WINDOW = 16  # batches that a stream sorts by length together


class Single(Protocol):
    """Runs a text that comes alone through all segments at once; see `engine.single`."""

    def __call__(self, encoding: Encoding) -> SingleAnswer:
        """Where the text leaves, and with what."""


@dataclass(frozen=True)
class SingleAnswer:
    """What a text left with: exit (0-based), logits `(1, classes)`, calibrated probability, and score."""

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

    Args:
        segments: the model, cut at its exits.
        policy: when to leave.
        batch_size: rows run at once; exits and answers do not depend on it.
        pad_values: what to pad each input with, by name; 0 where not given.
        single: runs a text that comes alone, or one by one where the batch size is 1.
        times: of the segments in one thread: batches are then cut so that they take the least time, and rows of a
            request that differ much in length do not share one.
        workers: threads that run batches side by side; the segments should then keep to the thread that calls them.

    Attributes:
        stats: what the last `run`, or the last `stream` so far, did.

    Several threads may share one engine; `stats` then tells of whichever run ended last.

    Raises:
        CriterionError: the policy was made for another model or task.
        ConfigError: `batch_size` is below 1.
    """

    window = WINDOW

    def __init__(
        self,
        segments: Segments[State],
        policy: Policy,
        *,
        batch_size: int = 32,
        pad_values: Mapping[str, int] | None = None,
        single: Single | None = None,
        times: SegmentTimes | None = None,
        workers: int = 1,
    ) -> None:
        policy.check(segments.exit_layers, segments.kind, segments.gates)
        self.segments = segments
        self.policy = policy
        self.batch_size = check_batch_size(batch_size)
        self.pad_values = dict(pad_values or {})
        self.single = single
        self.workers = Workers(workers)
        self.plan: Plan | None = None
        if times is not None:
            self.plan = partial(plan_batches, batch_size=batch_size, times=times, workers=workers)
        self._costs_at = lru_cache(maxsize=None)(lambda length: segments.costs(np.array([length]))[0][0])
        self._layers = np.asarray(segments.exit_layers, dtype=np.int64)
        self.stats = self._no_stats()

    def run(self, encodings: Sequence[Encoding], labels: ArrayLike | None = None) -> Decisions:
        """Decide on texts.

        Args:
            encodings: token ids without padding, one dict a text.
            labels: true labels `(examples,)`; for the `oracle` criterion, which looks at them.

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
            encodings: read as needed, `window * batch_size` at a time, and sorted by length within such a window.

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
        known = None if labels is None else np.asarray(labels)
        if known is not None and known.shape != (len(encodings),):
            raise DataError(
                f"expected one label for each of the {len(encodings)} texts, got shape {known.shape}: "
                "leave labels out unless the criterion is 'oracle'"
            )
        lengths = token_counts(encodings)
        if self.single is not None and known is None and 1 in (len(encodings), self.batch_size):
            return self._one_by_one([self.single(encoding) for encoding in encodings], lengths)
        log = DecisionBuffer.empty(len(encodings))
        count = self._run_all(encodings, lengths, known, log)
        stats = Stats(self._left(log.exit), count, int(log.near.sum()))
        return log.decisions(self.segments, self.policy, lengths), stats

    def _one_by_one(
        self, answers: Sequence[SingleAnswer], lengths: NDArray[np.int64]
    ) -> tuple[Decisions, Stats]:
        """What the single graph decided; of scores near the threshold it tells the last one of a text alone."""
        exit = np.array([answer.exit for answer in answers], dtype=np.intp)
        score = np.array([answer.score for answer in answers], dtype=np.float64)
        decisions = Decisions(
            exit=exit,
            layer=self._layers[exit],
            prediction=np.array([answer.logits.argmax() for answer in answers], dtype=np.int64),
            probability=np.array([answer.probability for answer in answers], dtype=np.float64),
            score=score,
            cost=np.array(
                [self._costs_at(n)[k] for n, k in zip(lengths.tolist(), exit.tolist(), strict=True)]
            ),
        )
        near = near_threshold(self.policy.criterion, score) & (exit < len(self._layers) - 1)
        return decisions, Stats(self._left(exit), len(answers), int(near.sum()))

    def _left(self, exit: NDArray[np.intp]) -> tuple[int, ...]:
        """How many rows left at each exit."""
        return tuple(np.bincount(exit, minlength=len(self._layers)).tolist())

    def _run_all(
        self,
        encodings: Sequence[Encoding],
        lengths: NDArray[np.int64],
        labels: NDArray[Any] | None,
        log: DecisionBuffer,
    ) -> int:
        """Decide on all texts, batch by batch; returns the number of batches."""
        count = 0

        def jobs() -> Iterator[tuple[NDArray[np.intp], PaddedBatch]]:
            nonlocal count
            alike = self.segments.reads_padding
            for job in batches(
                encodings, self.batch_size, self.pad_values, lengths, plan=self.plan, alike=alike
            ):
                count += 1
                yield job

        self.workers.each(lambda job: self._run_batch(*job, labels, log), jobs())
        return count

    def _run_batch(
        self, rows: NDArray[np.intp], batch: PaddedBatch, labels: NDArray[Any] | None, log: DecisionBuffer
    ) -> None:
        """One batch through the segments, until nobody is left."""
        known = None if labels is None else labels[rows]
        flight: ActiveRows[State] | None = ActiveRows(rows, self.segments.start(batch), {}, known)
        for k in range(len(self.segments.exit_layers)):
            assert flight is not None, "the last exit takes all"
            if (flight := self.step(k, flight, log)) is None:
                break

    def step(self, k: int, flight: ActiveRows[State], log: DecisionBuffer) -> ActiveRows[State] | None:
        """Run segment `k` and write down who leaves; returns the rest, None where nobody is left."""
        state, evidence = self.segments.run(k, flight.state)
        assert len(evidence.logits) == len(flight.rows), "a segment must keep the rows of its state"
        if flight.labels is not None:
            evidence = replace(evidence, label=flight.labels)
        rule = self.policy.criterion
        scores, memory = rule.score(evidence.scaled(self.policy.temperatures), flight.memory)
        if k == len(self.segments.exit_layers) - 1:
            log.record(flight.rows, k, evidence.logits, scores)
            return None
        log.near[flight.rows] |= near_threshold(rule, scores)
        leave = rule.leaves(scores)
        if not leave.any():
            return ActiveRows(flight.rows, state, memory, flight.labels)
        if leave.all():
            log.record(flight.rows, k, evidence.logits, scores)
            return None
        log.record(flight.rows[leave], k, evidence.logits[leave], scores[leave])
        stay = np.flatnonzero(~leave)
        return ActiveRows(flight.rows, self.segments.take(state, stay), memory, flight.labels).only(stay)


@dataclass(frozen=True)
class ActiveRows(Generic[State]):
    """Rows on their way from exit to exit.

    Attributes:
        rows: their places among all examples `(batch,)`.
        state: the segments' state, of these rows.
        memory: the criterion's, `(batch, …)` each.
        labels: true labels `(batch,)`, where they are known.
    """

    rows: NDArray[np.intp]
    state: State
    memory: Memory
    labels: NDArray[Any] | None

    def only(self, stay: NDArray[np.intp]) -> ActiveRows[State]:
        """Some of the rows, for a state that has been cut to them already."""
        memory = {name: values[stay] for name, values in self.memory.items()}
        return ActiveRows(
            self.rows[stay], self.state, memory, None if self.labels is None else self.labels[stay]
        )


@dataclass
class DecisionBuffer:
    """Decisions as they fall, from any thread, in place; arrays `(examples,)`, logits `(examples, classes)`."""

    exit: NDArray[np.intp]
    score: NDArray[np.float64]
    near: NDArray[np.bool_]
    logits: NDArray[np.floating] | None = None  # made with the first rows, which tell the number of classes
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def empty(cls, examples: int) -> DecisionBuffer:
        return cls(np.zeros(examples, dtype=np.intp), np.zeros(examples), np.zeros(examples, dtype=np.bool_))

    def record(
        self, rows: NDArray[np.intp], exit: int, logits: NDArray[np.floating], scores: NDArray[np.float64]
    ) -> None:
        """Note rows that leave."""
        with self.lock:
            if self.logits is None:
                self.logits = np.zeros((len(self.exit), logits.shape[1]), dtype=logits.dtype)
        self.exit[rows] = exit
        self.score[rows] = scores
        self.logits[rows] = logits

    def decisions(self, segments: Segments[Any], policy: Policy, lengths: NDArray[np.int64]) -> Decisions:
        """Answers as the model gave them, calibrated probabilities, layers, and costs by unpadded length."""
        regression = segments.kind == "regression"
        logits = np.zeros((0, 2), dtype=np.float32) if self.logits is None else self.logits
        probability = np.full(len(logits), np.nan)
        if not regression and len(logits):
            divisor = 1.0 if policy.temperatures is None else np.asarray(policy.temperatures)[self.exit, None]
            probability = softmax(logits.astype(np.float64) / divisor).max(axis=-1)
        costs = (
            segments.costs(lengths)[0][np.arange(len(lengths)), self.exit] if len(lengths) else np.zeros(0)
        )
        return Decisions(
            exit=self.exit,
            layer=np.asarray(segments.exit_layers, dtype=np.int64)[self.exit],
            prediction=logits[:, 0].astype(np.float32) if regression else logits.argmax(axis=-1),
            probability=probability,
            score=self.score,
            cost=costs,
        )
