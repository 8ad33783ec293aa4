"""Rules on the class probabilities of one exit, without memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import set_fields
from offramp._core.errors import CriterionError
from offramp._core.trace import Evidence, Kind
from offramp.criteria.base import (
    FARTHEST,
    Criterion,
    Memory,
    confidence,
    finite_logits,
    log_probabilities,
    require_each,
)


def entropy(evidence: Evidence) -> NDArray[np.float64]:
    """Entropy `(batch,)` in nats, 0·log 0 = 0."""
    logs = log_probabilities(evidence)
    return -(np.exp(logs) * logs).sum(axis=1) + 0.0  # + 0.0 turns -0.0 into 0.0


class Confidence(Criterion):
    """Leave where the largest probability is at least t: `max p_i ≥ t`.

    Thresholds are in [0, 1]; above 1 (2 at most) no example leaves early. Default 0.9.

    Source: Schwartz et al. 2020 (The Right Tool for the Job); Rotem et al. 2023 (SWEET).
    """

    name = "confidence"
    label = "Confidence"
    default_threshold = 0.9
    threshold_range = (0.0, 2.0)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        return confidence(evidence), memory


class Entropy(Criterion):
    """Leave where the entropy is below t: `H(p_i) < t`, natural logarithm.

    Thresholds are at least 0 (no example leaves early); above ln K every example leaves. Default 0.2.

    Source: Xin et al. 2020 (DeeBERT).
    """

    name = "entropy"
    label = "Entropy"
    leaves_below = True
    default_threshold = 0.2
    threshold_range = (0.0, 1000.0)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        return entropy(evidence), memory


class NormalizedEntropy(Criterion):
    """Leave where the entropy as a share of its maximum is below t: `H(p_i) / ln K < t`.

    Thresholds are in [0, 1]. At 0 no example leaves early; above 1 (2 at most) every example leaves. Default 0.5.

    Source: Liu et al. 2020 (FastBERT), there called uncertainty, and the threshold speed.
    """

    name = "normalized_entropy"
    label = "Normalized entropy"
    leaves_below = True
    default_threshold = 0.5
    threshold_range = (0.0, 2.0)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        return np.minimum(entropy(evidence) / np.log(evidence.logits.shape[1]), 1.0), memory


class Margin(Criterion):
    """Leave where the two largest probabilities differ by at least t: `p_(1) − p_(2) ≥ t`.

    Thresholds are in [0, 1]; above 1 (2 at most) no example leaves early. Default 0.8, which for two classes is
    a confidence of 0.9.

    Source: in common use; Scheffer et al. 2001 for active learning.
    """

    name = "margin"
    label = "Margin"
    default_threshold = 0.8
    threshold_range = (0.0, 2.0)

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        top = np.exp(np.partition(log_probabilities(evidence), -2, axis=1)[:, -2:])
        return top[:, 1] - top[:, 0], memory


@dataclass(frozen=True)
class Energy(Criterion):
    """Leave where the free energy is below t: `−T_i · logsumexp(z_i / T_i) < t`.

    The energy has the scale of the logits, so the default of −3 is only a start: tune it.

    Args:
        temperatures: the `T_i` by which a policy has already divided the logits, one per exit; empty means
            1 everywhere. Tuning fills it in.

    Source: Liu et al. 2020 (Energy-based OOD detection), equation 4; COSEE
    (He et al., arXiv 2412.13236) for early exit, there rescaled.
    """

    temperatures: tuple[float, ...] = ()

    name: ClassVar[str] = "energy"
    label: ClassVar[str] = "Energy"
    leaves_below: ClassVar[bool] = True
    default_threshold: ClassVar[float] = -3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        tiny = float(np.finfo(np.float64).tiny)
        set_fields(
            self,
            temperatures=require_each(self.name, "temperatures", self.temperatures, tiny, FARTHEST),
        )

    def with_temperatures(self, temperatures: Sequence[float] | None) -> Self:
        return replace(self, temperatures=tuple(temperatures or ()))

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        from scipy.special import logsumexp

        temperature = self.temperatures[evidence.exit] if self.temperatures else 1.0
        return -temperature * logsumexp(finite_logits(evidence), axis=1), memory

    def check(self, exits: int, kind: Kind, gates: bool) -> None:
        super().check(exits, kind, gates)
        if self.temperatures and len(self.temperatures) != exits:
            raise CriterionError(
                f"'energy' has {len(self.temperatures)} temperatures, the model {exits} exits: tune it again"
            )
