"""The engine: runs a batch segment by segment, and drops the rows that leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp._core.trace import Evidence
from offramp.criteria import Memory
from offramp.engine.agreement import near_threshold
from offramp.engine.batching import Encoding, batches, check_batch_size, token_counts, windows
from offramp.engine.policy import Decisions, Policy, softmax
from offramp.engine.segments import Batch, Segments, State

WINDOW = 16  # batches that a stream sorts by length together


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

    Attributes:
        stats: what the last `run`, or the last `stream` so far, did.

    Raises:
        CriterionError: the policy was made for another model or task.
        ConfigError: `batch_size` is below 1.
    """

    def __init__(
        self,
        segments: Segments[State],
        policy: Policy,
        *,
        batch_size: int = 32,
        pad_values: Mapping[str, int] | None = None,
    ) -> None:
        policy.check(segments.exit_layers, segments.kind, segments.gates)
        self.segments = segments
        self.policy = policy
        self.batch_size = check_batch_size(batch_size)
        self.pad_values = dict(pad_values or {})
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
            encodings: read as needed, `16 * batch_size` at a time, and sorted by length within such a window.

        Yields:
            `Decisions` of consecutive stretches, in the order of `encodings`.
        """
        self.stats = self._no_stats()
        for window in windows(encodings, WINDOW * self.batch_size):
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
        log = _Log.empty(len(encodings), self.segments.kind == "regression")
        count = 0
        for rows, batch in batches(encodings, self.batch_size, self.pad_values):
            self._run_batch(rows, batch, None if known is None else known[rows], log)
            count += 1
        left = np.bincount(log.exit, minlength=len(self.segments.exit_layers))
        stats = Stats(tuple(int(n) for n in left), count, int(log.near.sum()))
        return log.decisions(self.segments, token_counts(encodings)), stats

    def _run_batch(
        self, rows: NDArray[np.intp], batch: Batch, labels: NDArray[Any] | None, log: _Log
    ) -> None:
        """Decide on one batch; `rows` and `labels` shrink together with the state."""
        exits = len(self.segments.exit_layers)
        state = self.segments.start(batch)
        memory: Memory = {}
        for k in range(exits):
            state, evidence = self.segments.run(k, state)
            assert len(evidence.logits) == len(rows), "a segment must keep the rows of its state"
            scaled = self.policy.scale(replace(evidence, label=labels))
            scores, memory = self.policy.criterion.score(scaled, memory)
            last = k == exits - 1
            if not last:
                log.near[rows] |= near_threshold(self.policy.criterion, scores)
            leave = np.ones(len(rows), dtype=bool) if last else self.policy.criterion.leaves(scores)
            log.record(rows, leave, evidence, scaled, scores)
            stay = np.flatnonzero(~leave)
            if not len(stay):
                return
            if len(stay) < len(rows):
                state = self.segments.take(state, stay)
                memory = {name: values[stay] for name, values in memory.items()}
                rows, labels = rows[stay], None if labels is None else labels[stay]


@dataclass(frozen=True)
class _Log:
    """Decisions as they fall, each row's in its place; arrays `(examples,)`."""

    exit: NDArray[np.intp]
    prediction: NDArray[Any]
    probability: NDArray[np.float64]
    score: NDArray[np.float64]
    near: NDArray[np.bool_]

    @classmethod
    def empty(cls, examples: int, regression: bool) -> _Log:
        return cls(
            exit=np.zeros(examples, dtype=np.intp),
            prediction=np.zeros(examples, dtype=np.float32 if regression else np.int64),
            probability=np.full(examples, np.nan),
            score=np.zeros(examples),
            near=np.zeros(examples, dtype=bool),
        )

    def record(
        self,
        rows: NDArray[np.intp],
        leave: NDArray[np.bool_],
        evidence: Evidence,
        scaled: Evidence,
        scores: NDArray[np.float64],
    ) -> None:
        """Note the rows that leave: answers as the model gave them, probabilities calibrated."""
        out = rows[leave]
        self.exit[out] = evidence.exit
        self.score[out] = scores[leave]
        if self.prediction.dtype.kind == "f":
            self.prediction[out] = evidence.logits[leave, 0]
        else:
            self.prediction[out] = evidence.logits[leave].argmax(axis=-1)
            self.probability[out] = softmax(scaled.logits[leave]).max(axis=-1)

    def decisions(self, segments: Segments[Any], lengths: NDArray[np.int64]) -> Decisions:
        """The log with layers, and costs by unpadded length."""
        rows = np.arange(len(lengths))
        costs = segments.costs(lengths)[0][rows, self.exit] if len(rows) else np.zeros(0)
        layers = np.asarray(segments.exit_layers, dtype=np.int64)[self.exit]
        return Decisions(self.exit, layers, self.prediction, self.probability, self.score, costs)
