"""Rules that remember earlier exits: patience and votes. Memory is batch-first, so engines can drop rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import choice, flag, set_fields
from offramp._core.errors import ConfigError, CriterionError, DataError
from offramp._core.trace import Evidence, Kind, Trace
from offramp.criteria.base import FARTHEST, Criterion, Memory, answer, confidence, require, require_each

WEIGHTINGS = ("none", "cost", "accuracy")


@dataclass(frozen=True)
class Patience(Criterion):
    """Leave once t exits in a row have confirmed the answer of the exit before them.

    The counter starts at 0, grows by 1 if the answer equals the previous exit's, and returns to 0 if
    it changes. The rule holds at t, so exit t + 1 is the earliest. In regression, answers with
    `|y_i − y_{i−1}| < tolerance` count as equal. Thresholds are whole numbers of at least 1; from E − 1 on
    no example leaves early. Default 2.

    Args:
        tolerance: τ, in units of the regression target; classification ignores it.

    Source: Zhou et al. 2020 (PABEE).
    """

    tolerance: float = 0.1

    name: ClassVar[str] = "patience"
    label: ClassVar[str] = "Patience"
    regression: ClassVar[bool] = True
    min_exits: ClassVar[int] = 2
    whole: ClassVar[bool] = True
    default_threshold: ClassVar[float] = 2
    threshold_range: ClassVar[tuple[float, float]] = (1, FARTHEST)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, tolerance=require(self.name, "tolerance", self.tolerance, 0.0, FARTHEST))

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        now = answer(evidence)
        run = np.zeros(len(now))
        if memory:
            before = memory["answer"]
            same = np.abs(now - before) < self.tolerance if now.dtype.kind == "f" else now == before
            run = np.where(same, memory["run"] + 1, 0.0)
        return run, {"answer": now, "run": run}


@dataclass(frozen=True)
class PatienceConfidence(Criterion):
    """Leave once t exits in a row have been confident: `max p_i ≥ c`, for any answers.

    Thresholds are whole numbers of at least 1; above E − 1 no example leaves early. Default 2.

    Args:
        confidence: c, in [0, 1].

    Source: Zhang et al. 2022 (PCEE-BERT).
    """

    confidence: float = 0.9

    name: ClassVar[str] = "patience_confidence"
    label: ClassVar[str] = "Patience with confidence"
    whole: ClassVar[bool] = True
    default_threshold: ClassVar[float] = 2
    threshold_range: ClassVar[tuple[float, float]] = (1, FARTHEST)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, confidence=require(self.name, "confidence", self.confidence, 0.0, 1.0))

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        sure = confidence(evidence) >= self.confidence
        if evidence.silent is not None:
            sure &= ~evidence.silent
        before = memory["run"] if memory else np.zeros(len(sure))
        run = np.where(sure, before + 1, 0.0)
        return run, {"run": run}


@dataclass(frozen=True)
class Vote(Criterion):
    """Leave once the weighted confidences of the exits that agree, summed over the current run, reach t.

    If the answer changes, the sum starts again with the exit's own confidence. Thresholds are at least 0 (every example
    leaves); above the sum of the weights of the exits before the last no example leaves early. Default 1.5.

    Args:
        weighting: what the weights of the exits are fitted to: `none`, all are 1; `cost`, the share of the full
            model's FLOPs that is spent up to the exit (the paper's BEEM-C); `accuracy`, the exit's accuracy on
            calibration data (BEEM-A).
        weights: one for each exit, in [0, 100], by `fit`; empty means 1 everywhere.
        reset: if the answer changes, and at the first exit, the sum starts again at 0, as in the released code. Then
            exit 2 is the earliest.

    Source: Bajpai and Hanawal 2025 (BEEM, arXiv 2502.00745). Its released code has the weights 0.1 · i, i from 0.
    """

    weighting: str = "none"
    weights: tuple[float, ...] = ()
    reset: bool = False

    name: ClassVar[str] = "vote"
    label: ClassVar[str] = "Vote"
    default_threshold: ClassVar[float] = 1.5
    threshold_range: ClassVar[tuple[float, float]] = (0.0, 1000.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = require_each(self.name, "weights", self.weights, 0.0, 100.0)
        try:
            weighting = choice("weighting", self.weighting, WEIGHTINGS)
            set_fields(self, weighting=weighting, weights=weights, reset=flag("reset", self.reset))
        except ConfigError as error:
            raise CriterionError(f"'vote': {error}") from error

    def fit(self, trace: Trace) -> Self:
        """The rule with the weights of its weighting; `DataError` without examples, or labels that it needs."""
        if self.weighting == "none":
            return self
        if not len(trace):
            raise DataError(
                "expected calibration examples to fit the weights of 'vote' on, got an empty trace"
            )
        if self.weighting == "cost":
            weights = trace.flops.mean(axis=0) / trace.full_flops.mean()
        else:
            weights = (trace.predictions() == trace.require_labels()[:, None]).mean(axis=0)
        return replace(self, weights=tuple(weights.tolist()))

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        now, sure = answer(evidence), confidence(evidence)
        if self.weights:
            sure = self.weights[evidence.exit] * sure
        elif self.weighting != "none":
            raise CriterionError(
                f"the weights of 'vote' by {self.weighting} are not fitted yet: tune it on calibration data"
            )
        start = np.zeros(len(now)) if self.reset else sure
        total = np.where(now == memory["answer"], memory["total"] + sure, start) if memory else start
        return total, {"answer": now, "total": total}

    def check(self, exits: int, kind: Kind, gates: bool) -> None:
        super().check(exits, kind, gates)
        if self.weights and len(self.weights) != exits:
            raise CriterionError(
                f"'vote' has {len(self.weights)} weights, the model {exits} exits: tune it again"
            )
