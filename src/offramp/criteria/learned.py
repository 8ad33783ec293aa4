"""The learned exit: a gate per exit that was trained to predict whether the exit is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import set_fields
from offramp._core.errors import CriterionError
from offramp._core.trace import Evidence, Kind, Trace
from offramp.criteria.base import Criterion, Memory, finite, finite_logits, require_each

NO_GATES = "'learned' needs learned gates: train the model with gates=True (--gates)"


@dataclass(frozen=True)
class Learned(Criterion):
    """Leave where the gate, min–max scaled per exit, is at least t: `s_i ≥ t`.

    `s_i = clip((g_i − low_i) / (high_i − low_i), 0, 1)`. An exit whose gate was constant when the range was
    fitted scores 0 up to that constant and 1 above it. Thresholds are in [0, 1]; above 1 (2 at most) no example
    leaves early. Default 0.9.

    Args:
        low: smallest gate per exit on the calibration data; empty means 0 everywhere.
        high: largest gate per exit on the calibration data; empty means 1 everywhere.

    Source: Rotem et al. 2023 (SWEET), learning to exit; Xin et al. 2021 (BERxiT), learning-to-exit module.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    name: ClassVar[str] = "learned"
    label: ClassVar[str] = "Learned gates"
    needs_gate: ClassVar[bool] = True
    default_threshold: ClassVar[float] = 0.9
    threshold_range: ClassVar[tuple[float, float]] = (0.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, values in (("low", self.low), ("high", self.high)):
            set_fields(self, **{option: require_each(self.name, option, values, 0.0, 1.0)})
        pairs = zip(self.low, self.high, strict=False)
        if len(self.low) != len(self.high) or any(low > high for low, high in pairs):
            raise CriterionError(
                f"'learned' expected one low ≤ high per exit, got {self.low} and {self.high}: tune it again"
            )

    def fit(self, trace: Trace) -> Self:
        """The rule with the smallest and largest gate of every exit; `CriterionError` without finite gates."""
        if trace.gates is None:
            raise CriterionError(NO_GATES)
        if not len(trace):
            raise CriterionError(
                "expected calibration examples to fit the gate ranges on, got an empty trace"
            )
        columns = [finite(trace.gates[:, exit], "gates", exit) for exit in range(trace.exits)]
        low, high = (tuple(float(end(column)) for column in columns) for end in (np.min, np.max))
        return replace(self, low=low, high=high)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        if evidence.gate is None:
            raise CriterionError(NO_GATES)
        finite_logits(evidence)  # the gate may be fine even if the answer is broken
        gate = finite(evidence.gate, "gates", evidence.exit)
        if not self.low:
            return np.clip(gate, 0.0, 1.0), memory
        low, high = self.low[evidence.exit], self.high[evidence.exit]
        # The limit of the scaling for a constant gate: a step right above the constant.
        span = max(high - low, float(np.finfo(np.float32).tiny))
        return np.clip((gate - low) / span, 0.0, 1.0), memory

    def check(self, exits: int, kind: Kind, gates: bool) -> None:
        super().check(exits, kind, gates)
        if self.low and len(self.low) != exits:
            raise CriterionError(
                f"'learned' was fitted on {len(self.low)} exits, the model has {exits}: tune it again"
            )
