"""Rules to compare with: always the same exit, and the best possible rule. Neither can be tuned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CriterionError
from offramp._core.trace import Evidence, Kind
from offramp.criteria.base import FARTHEST, Criterion, Memory, answer, finite_logits


class Fixed(Criterion):
    """Always leave at exit k, the number of the exit counted from 1 (not its layer). Default 1.

    k is the threshold: `make_criterion("fixed", 3)` leaves at the third exit.
    """

    name = "fixed"
    label = "Fixed exit"
    regression = True
    tunable = False
    whole = True
    default_threshold = 1
    threshold_range = (1, FARTHEST)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        return np.full(len(finite_logits(evidence)), float(evidence.exit + 1)), memory

    def check(self, exits: int, kind: Kind, gates: bool) -> None:
        super().check(exits, kind, gates)
        assert not isinstance(self.threshold, tuple), (
            "only rules that can be tuned have thresholds of their own"
        )
        if self.threshold > exits:
            raise CriterionError(
                f"'fixed' expected an exit number from 1 to {exits}, got {self.threshold:g}: "
                "give the number of the exit, counted from 1, not its layer"
            )


class Oracle(Criterion):
    """Leave at the first right exit, else at the last: the upper bound, for evaluation only.

    It reads the labels, so no deployed model can use it. The threshold is 1 and cannot be chosen.
    """

    name = "oracle"
    label = "Oracle"
    tunable = False
    default_threshold = 1.0
    threshold_range = (1.0, 1.0)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        if evidence.label is None:
            raise CriterionError(
                "'oracle' needs the true labels, got none: use a labelled split, or another rule"
            )
        return (answer(evidence) == evidence.label).astype(np.float64), memory
