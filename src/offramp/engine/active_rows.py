"""The rows of a batch on their way from exit to exit, and their decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from offramp.criteria import Memory
from offramp.engine.agreement import near_threshold
from offramp.engine.policy import Decisions, Policy
from offramp.engine.segments import Segments, State

Other = TypeVar("Other")


@dataclass(frozen=True)
class ActiveRows(Generic[State]):
    """Rows of a batch that have not left yet."""

    rows: NDArray[np.intp]  # (batch,), positions among all examples
    state: State  # of the segments, for these rows
    memory: Memory  # of the criterion, (batch, …) each
    labels: NDArray[Any] | None  # (batch,)
    caps: NDArray[np.intp] | None = None  # (batch,), the exit at which each row leaves at the latest

    def without_state(self) -> ActiveRows[None]:
        """The rows, to be batched anew."""
        return ActiveRows(self.rows, None, self.memory, self.labels, self.caps)

    def subset(self, positions: NDArray[np.intp], state: Other) -> ActiveRows[Other]:
        """Some of the rows, with their state."""
        return ActiveRows(
            self.rows[positions],
            state,
            {name: values[positions] for name, values in self.memory.items()},
            None if self.labels is None else self.labels[positions],
            None if self.caps is None else self.caps[positions],
        )


class DecisionBuffer:
    """Decisions in the order of the examples, filled in by any thread; arrays are `(examples, …)`."""

    def __init__(self, examples: int) -> None:
        self.exit = np.zeros(examples, dtype=np.intp)  # 0-based
        self.score = np.zeros(examples)  # of the criterion, at that exit
        self.near = np.zeros(examples, dtype=np.bool_)  # a score came near the threshold at a passed exit
        # (examples, classes), once the first rows leave: their logits give the classes.
        self.logits: NDArray[np.floating] | None = None
        self.batches = 0  # made so far
        self._lock = Lock()

    def record(
        self, rows: NDArray[np.intp], exit: int, logits: NDArray[np.floating], scores: NDArray[np.float64]
    ) -> None:
        """Record rows that leave."""
        with self._lock:
            if self.logits is None:
                self.logits = np.zeros((len(self.exit), logits.shape[1]), dtype=logits.dtype)
        self.exit[rows] = exit
        self.score[rows] = scores
        self.logits[rows] = logits

    def decisions(self, segments: Segments[Any], policy: Policy, lengths: NDArray[np.int64]) -> Decisions:
        """The decisions, with the FLOPs of the unpadded lengths `(examples,)`."""
        regression = segments.kind == "regression"
        logits = (
            np.zeros((0, 1 if regression else 2), dtype=np.float32) if self.logits is None else self.logits
        )
        probability = np.full(len(logits), np.nan)
        flops = np.zeros(0)
        if len(logits):
            flops = segments.flops(lengths)[0][np.arange(len(lengths)), self.exit]
            if not regression:
                probability = policy.probabilities(self.exit, logits).max(axis=-1)
        return Decisions(
            exit=self.exit,
            layer=np.asarray(segments.exit_layers, dtype=np.int64)[self.exit],
            prediction=logits[:, 0].astype(np.float32) if regression else logits.argmax(axis=-1),
            probability=probability,
            score=self.score,
            flops=flops,
            logits=logits,
        )


def run_segment(
    segments: Segments[State], policy: Policy, k: int, active: ActiveRows[State], buffer: DecisionBuffer
) -> ActiveRows[State] | None:
    """Run segment `k` (0-based) and record the rows that leave. Return the rows that stay, or None."""
    state, evidence = segments.run(k, active.state)
    assert len(evidence.logits) == len(active.rows), "a segment must keep the rows of its state"
    if active.labels is not None:
        evidence = replace(evidence, label=active.labels)
    scores, memory = policy.criterion.score(evidence.scaled(policy.temperatures), active.memory)
    if k == len(segments.exit_layers) - 1:
        buffer.record(active.rows, k, evidence.logits, scores)
        return None
    near, leave = near_threshold(policy.criterion, scores), policy.criterion.leaves(scores)
    if active.caps is not None:
        capped = active.caps <= k
        near, leave = near & ~capped, leave | capped
    buffer.near[active.rows] |= near
    if not leave.any():
        return replace(active, state=state, memory=memory)
    buffer.record(active.rows[leave], k, evidence.logits[leave], scores[leave])
    if leave.all():
        return None
    stay = np.flatnonzero(~leave)
    return replace(active, memory=memory).subset(stay, segments.take(state, stay))


def join_rows(groups: Sequence[ActiveRows[Any]], state: State) -> ActiveRows[State]:
    """Join groups that wait for the same segment, with their joined state."""
    labels = [group.labels for group in groups if group.labels is not None]
    caps = [group.caps for group in groups if group.caps is not None]
    return ActiveRows(
        np.concatenate([group.rows for group in groups]),
        state,
        {name: np.concatenate([group.memory[name] for group in groups]) for name in groups[0].memory},
        np.concatenate(labels) if labels else None,
        np.concatenate(caps) if caps else None,
    )
