"""The rows of a batch on their way from exit to exit, and their decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
    answers: Memory = field(default_factory=dict)  # of `Policy.answer_so_far`, (batch, …) each
    caps: NDArray[np.intp] | None = None  # (batch,), the exit at which each row leaves at the latest

    def without_state(self) -> ActiveRows[None]:
        """The rows, to be batched anew."""
        return ActiveRows(self.rows, None, self.memory, self.labels, self.answers, self.caps)

    def subset(self, positions: NDArray[np.intp], state: Other) -> ActiveRows[Other]:
        """Some of the rows, with their state."""
        return ActiveRows(
            self.rows[positions],
            state,
            {name: values[positions] for name, values in self.memory.items()},
            None if self.labels is None else self.labels[positions],
            {name: values[positions] for name, values in self.answers.items()},
            None if self.caps is None else self.caps[positions],
        )


class DecisionBuffer:
    """Decisions in the order of the examples, filled in by any thread; arrays are `(examples, …)`.

    Args:
        examples: their number.
        left: called with the positions of rows that have just left, by the thread that runs them.
    """

    def __init__(self, examples: int, left: Callable[[NDArray[np.intp]], None] | None = None) -> None:
        self.exit = np.zeros(examples, dtype=np.intp)  # 0-based
        self.answer_exit = np.zeros(examples, dtype=np.intp)
        self.score = np.zeros(examples)  # of the criterion, at that exit
        self.near = np.zeros(examples, dtype=np.bool_)  # a score came near the threshold at a passed exit
        # Of the answers (examples, classes), once the first rows leave: their logits give the classes.
        self.logits: NDArray[np.floating] | None = None
        self.batches = 0  # made so far
        self._left, self._lock = left, Lock()

    def record(self, leaving: ActiveRows[Any], exit: int, scores: NDArray[np.float64]) -> None:
        """Record rows that leave, with their answers."""
        rows, logits = leaving.rows, leaving.answers["logits"]
        with self._lock:
            if self.logits is None:
                self.logits = np.zeros((len(self.exit), logits.shape[1]), dtype=logits.dtype)
        self.exit[rows] = exit
        self.answer_exit[rows] = leaving.answers["exit"]
        self.score[rows] = scores
        self.logits[rows] = logits
        if self._left is not None:
            self._left(rows)

    def decisions(
        self,
        segments: Segments[Any],
        policy: Policy,
        lengths: NDArray[np.int64],
        rows: NDArray[np.intp] | slice = slice(None),
    ) -> Decisions:
        """The decisions on some rows that have left, with the FLOPs of the unpadded lengths `(examples,)`."""
        regression = segments.kind == "regression"
        logits = (
            np.zeros((0, 1 if regression else 2), np.float32) if self.logits is None else self.logits[rows]
        )
        exit, answer_exit, lengths = self.exit[rows], self.answer_exit[rows], lengths[rows]
        probability = np.full(len(logits), np.nan)
        flops = np.zeros(0)
        if len(logits):
            flops = segments.flops(lengths)[0][np.arange(len(lengths)), exit]
            if not regression:
                probability = policy.probabilities(answer_exit, logits).max(axis=-1)
        return Decisions(
            exit=exit,
            layer=np.asarray(segments.exit_layers, dtype=np.int64)[exit],
            prediction=logits[:, 0].astype(np.float32) if regression else logits.argmax(axis=-1),
            probability=probability,
            score=self.score[rows],
            flops=flops,
            answer_exit=answer_exit,
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
    scaled = evidence.scaled(policy.temperatures)
    scores, memory = policy.criterion.score(scaled, active.memory)
    answers = policy.answer_so_far(evidence, scaled, active.answers)
    active = ActiveRows(active.rows, state, memory, active.labels, answers, active.caps)
    if k == len(segments.exit_layers) - 1:
        buffer.record(active, k, scores)
        return None
    near, leave = near_threshold(policy.criterion, scores, k), policy.criterion.leaves(scores, k)
    if active.caps is not None:
        capped = active.caps <= k
        near, leave = near & ~capped, leave | capped
    buffer.near[active.rows] |= near
    if not leave.any():
        return active
    buffer.record(active.subset(np.flatnonzero(leave), None), k, scores[leave])
    if leave.all():
        return None
    stay = np.flatnonzero(~leave)
    return active.subset(stay, segments.take(state, stay))


def join_rows(groups: Sequence[ActiveRows[Any]], state: State) -> ActiveRows[State]:
    """Join groups that wait for the same segment, with their joined state."""
    labels = [group.labels for group in groups if group.labels is not None]
    caps = [group.caps for group in groups if group.caps is not None]

    def joined(memories: list[Memory]) -> Memory:
        return {name: np.concatenate([memory[name] for memory in memories]) for name in memories[0]}

    return ActiveRows(
        np.concatenate([group.rows for group in groups]),
        state,
        joined([group.memory for group in groups]),
        np.concatenate(labels) if labels else None,
        joined([group.answers for group in groups]),
        np.concatenate(caps) if caps else None,
    )
