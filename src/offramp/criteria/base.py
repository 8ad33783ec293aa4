"""The protocol of an exit criterion: a score at each exit, compared with a threshold."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CriterionError
from offramp._core.numbers import is_number
from offramp._core.trace import Evidence, Kind, Trace

Memory = dict[str, NDArray[Any]]  # every array has the batch as its first dimension
FARTHEST = sys.float_info.max  # finite, so that a policy file stays plain JSON


@dataclass(frozen=True)
class Criterion(ABC):
    """An exit rule: an example leaves at the first exit where its score passes the threshold.

    A rule is its `score`; the threshold never enters it, so the scores of a trace are computed once and
    every threshold is a comparison. The last exit always lets everything leave. A threshold that can never
    fire is allowed without a word: it is the full model, one end of every sweep.
    """

    threshold: float

    name: ClassVar[str]  # its key in `CRITERIA`
    label: ClassVar[str]  # its name in tables and figures
    leaves_below: ClassVar[bool] = False  # True: leave at score < threshold; False: at score >= threshold
    regression: ClassVar[bool] = False  # whether the rule means anything for a regression head
    min_exits: ClassVar[int] = 1
    needs_gate: ClassVar[bool] = False
    tunable: ClassVar[bool] = True
    whole: ClassVar[bool] = False  # True: thresholds and scores are whole numbers
    default_threshold: ClassVar[float]
    # Thresholds accepted. Scores s satisfy low <= s < high, so that one end is "all leave at exit 1" and the
    # other "none leaves early".
    threshold_range: ClassVar[tuple[float, float]] = (-FARTHEST, FARTHEST)

    def __post_init__(self) -> None:
        low, high = self.threshold_range
        require(self.name, "threshold", self.threshold, low, high, whole=self.whole)

    @abstractmethod
    def score(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        """Scores `(batch,)` at one exit, and what the next exit needs to know. Memory starts as `{}`."""

    def leaves(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Where a score passes the threshold; same shape as `scores`."""
        return scores < self.threshold if self.leaves_below else scores >= self.threshold

    def fit(self, trace: Trace) -> Self:
        """The rule with everything but the threshold fitted on a calibration trace; most rules fit nothing."""
        return self

    def with_temperatures(self, temperatures: Sequence[float] | None) -> Self:
        """The rule for logits that a policy divides by one temperature per exit; None: by nothing.

        Most rules read probabilities, which need no correction.
        """
        return self

    @property
    def leaves_at_once(self) -> bool:
        """Whether all leave at the first exit, whatever it says: the threshold lies at that end of its range.

        Rules that count exits let no one leave at the first.
        """
        low, high = self.threshold_range
        return self.tunable and not self.whole and self.threshold == (high if self.leaves_below else low)

    def step(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.bool_], Memory]:
        """Decide at one exit: who leaves `(batch,)`, and the memory for the next exit."""
        scores, memory = self.score(evidence, memory)
        if evidence.exit == evidence.exits - 1:
            return np.ones(len(scores), dtype=bool), memory
        return self.leaves(scores), memory

    def check(self, exits: int, kind: Kind, gates: bool) -> None:
        """Raise `CriterionError` where the rule does not fit the model or the task."""
        if kind == "regression" and not self.regression:
            raise CriterionError(
                f"{self.name!r} needs class probabilities, but the task is regression: use 'patience'"
            )
        if exits < self.min_exits:
            raise CriterionError(
                f"{self.name!r} needs at least {self.min_exits} exits, but the model has {exits}"
            )
        if self.needs_gate and not gates:
            raise CriterionError(
                f"{self.name!r} needs learned gates: train the model with gates=True (--gates)"
            )


def require(rule: str, option: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise `CriterionError` unless an option is a (whole) number from `low` to `high`, both included."""
    # A NaN threshold would compare false everywhere and silently turn early exit off.
    if is_number(value) and low <= value <= high and (not whole or value % 1 == 0):
        return
    span = f"from {low:g} to {high:g}" if high < FARTHEST else f"of at least {low:g}"
    if low == -FARTHEST:
        span = "that is finite"
    kind = "a whole number" if whole else "a number"
    raise CriterionError(f"{rule!r} expected {kind} {span} as {option}, got {value!r}")


def scores(criterion: Criterion, trace: Trace) -> NDArray[np.float64]:
    """Scores `(examples, exits)` of a criterion over a whole trace: the scan of its `score`."""
    criterion.check(trace.exits, trace.kind, trace.gates is not None)
    memory: Memory = {}
    columns = []
    for exit in range(trace.exits):
        column, memory = criterion.score(trace.evidence(exit), memory)
        columns.append(column)
    return np.stack(columns, axis=1)


def first_exit(criterion: Criterion, scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Exit index `(examples,)`, 0-based, at which each row of scores `(examples, exits)` leaves."""
    leave = criterion.leaves(scores)
    leave[:, -1] = True
    return leave.argmax(axis=1)
