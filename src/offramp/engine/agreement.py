"""Checks of an engine's decisions: a comparison with the trace, and a slow and simple reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.criteria import Criterion, Memory, scores
from offramp.engine.batching import MASK, Encoding
from offramp.engine.policy import Decisions, Policy
from offramp.engine.segments import Segments

NOISE = 1e-5  # rounding alone may move a score this near the threshold to either side


@dataclass(frozen=True)
class Agreement:
    """The agreement of an engine's decisions with the trace's.

    Attributes:
        compared: number of compared rows: all except those within noise.
        same_exit: compared rows that left at the same exit.
        same_label: compared rows with the same answer; for regression, values within 1e-4 of each other.
        within_noise: exempt rows: a score came within 1e-5 of the threshold at an exit that they reached.
        mismatches: indices of the compared rows `(mismatches,)` whose exit or answer differs.
    """

    compared: int
    same_exit: int
    same_label: int
    within_noise: int
    mismatches: NDArray[np.intp]

    @property
    def holds(self) -> bool:
        """Whether exit and answer are the same for every compared row."""
        return not len(self.mismatches)

    def __str__(self) -> str:
        first = f"; first mismatches: {self.mismatches[:5].tolist()}" if not self.holds else ""
        return (
            f"same exit {self.same_exit}/{self.compared}, same label {self.same_label}/{self.compared}, "
            f"{self.within_noise} within noise{first}"
        )


def near_threshold(criterion: Criterion, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which scores are within 1e-5 of the threshold; same shape as `scores`.

    Rules that count (`patience`, `fixed`, `oracle`) meet their threshold exactly, which is no noise.
    """
    if criterion.whole or not criterion.tunable:
        return np.zeros(scores.shape, dtype=bool)
    return np.abs(scores - criterion.threshold) <= NOISE


def check_agreement(decisions: Decisions, trace: Trace, policy: Policy) -> Agreement:
    """Compare an engine's decisions with the policy applied to the trace.

    Args:
        decisions: from an engine, on the trace's examples in their order.
        trace: the output of every exit for them.
        policy: the engine's policy.

    Returns:
        An `Agreement`; it `holds` if every row outside the noise has the same exit and answer.

    Raises:
        DataError: the numbers of decisions and examples differ.
        CriterionError: the policy was made for another model than the trace's.
    """
    if len(decisions) != len(trace):
        raise DataError(
            f"got {len(decisions)} decisions for a trace of {len(trace)} examples: run both on one data set"
        )
    expected = policy.decide(trace)
    near = near_threshold(policy.criterion, scores(policy.criterion, trace.scaled(policy.temperatures)))
    # Passed: up to the exit taken. The last exit has no threshold.
    passed = np.arange(trace.exits - 1) <= expected.exit[:, None]
    noise = (near[:, :-1] & passed).any(axis=1)
    same_exit = decisions.exit == expected.exit
    same_label = np.isclose(decisions.prediction, expected.prediction, rtol=0, atol=1e-4)
    return Agreement(
        compared=int((~noise).sum()),
        same_exit=int((same_exit & ~noise).sum()),
        same_label=int((same_label & ~noise).sum()),
        within_noise=int(noise.sum()),
        mismatches=np.flatnonzero(~noise & ~(same_exit & same_label)),
    )


def run_reference(
    segments: Segments[Any], policy: Policy, encodings: Sequence[Encoding], labels: ArrayLike | None = None
) -> Decisions:
    """A slow reference engine: it decides on one text at a time, without padding, sorting or compaction.

    Arguments are those of `CompactingEngine.run`, whose result must be equal.
    """
    policy.check(segments.exit_layers, segments.kind, segments.gates)
    truth = [None] * len(encodings) if labels is None else np.asarray(labels).reshape(-1, 1)
    decided = [decide_one(segments, policy, *pair) for pair in zip(encodings, truth, strict=True)]
    numbers = [decision[:5] for decision in decided]
    exit, answer, probability, score, flops = np.array(numbers, dtype=np.float64).reshape(-1, 5).T
    return Decisions(
        exit=exit.astype(np.intp),
        layer=np.asarray(segments.exit_layers, dtype=np.int64)[exit.astype(np.intp)],
        prediction=answer.astype(np.float32 if segments.kind == "regression" else np.int64),
        probability=probability,
        score=score,
        flops=flops,
        logits=np.stack([decision[5] for decision in decided])
        if decided
        else np.zeros((0, 2), dtype=np.float32),
    )


def decide_one(
    segments: Segments[Any], policy: Policy, encoding: Encoding, label: Any = None
) -> tuple[int, float, float, float, float, NDArray[np.floating]]:
    """Exit index, answer, probability, score, FLOPs and logits `(classes,)` of one example."""
    batch = {name: np.array([values], dtype=np.int64) for name, values in encoding.items()}
    length = next(iter(batch.values())).shape[1]
    batch.setdefault(MASK, np.ones((1, length), dtype=np.int64))
    state = segments.start(batch)
    memory: Memory = {}
    for k in range(len(segments.exit_layers)):
        state, evidence = segments.run(k, state)
        scaled = replace(evidence, label=label).scaled(policy.temperatures)
        score = policy.criterion.score(scaled, memory)[0][0]
        leave, memory = policy.criterion.step(scaled, memory)
        if leave[0]:
            break
    flops = segments.flops(np.array([length]))[0][0, k]
    if segments.kind == "regression":
        return k, evidence.logits[0, 0], np.nan, score, flops, evidence.logits[0]
    probability = softmax(scaled.logits[0]).max()
    return k, int(evidence.logits[0].argmax()), probability, score, flops, evidence.logits[0]
