"""Rules that remember earlier exits: patience and votes. Memory is batch-first, so engines can drop rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import set_fields
from offramp._core.trace import Evidence
from offramp.criteria.base import FARTHEST, Criterion, Memory, answer, confidence, require


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

    def score(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
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

    def score(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        sure = confidence(evidence) >= self.confidence
        before = memory["run"] if memory else np.zeros(len(sure))
        run = np.where(sure, before + 1, 0.0)
        return run, {"run": run}


class Vote(Criterion):
    """Leave once the confidences of the exits that agree, summed over the current run, reach t.

    The sum starts again with the exit's own confidence if the answer changes. Thresholds are at least 0
    (every example leaves); above E − 1 no example leaves early. Default 1.5.

    Source: Bajpai and Hanawal 2025 (BEEM, arXiv 2502.00745), without its weights per exit.
    """

    name = "vote"
    label = "Vote"
    default_threshold = 1.5
    threshold_range = (0.0, 1000.0)

    def score(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        now, total = answer(evidence), confidence(evidence)
        if memory:
            total = np.where(now == memory["answer"], memory["total"] + total, total)
        return total, {"answer": now, "total": total}
