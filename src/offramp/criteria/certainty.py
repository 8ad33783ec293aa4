"""CAP: certainty from the logits and from what the classifier does not read of its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import set_fields
from offramp._core.errors import CriterionError
from offramp._core.trace import Evidence
from offramp.criteria.base import Criterion, Memory, finite, finite_logits, require


@dataclass(frozen=True)
class Cap(Criterion):
    """Leave where the probability of an added class is below t: `softmax([z_i, α·s_i])_(K+1) < t`.

    `s_i` in [0, 1] is the residual: the share of the exit's features that its classifier does not read (see
    `offramp.model.class_space`). The logits are those that the policy has divided by a temperature, if it has any. At
    layer 0 the residual is 0. Thresholds are in [0, 1]. At 0 no example leaves early; above 1 (2 at most) every
    example leaves. Default 0.1.

    Args:
        alpha: α, at least 0; 0.1 as in the released code. At 0 the rule is the normalised energy of COSEE,
            `1 / (1 + Σ exp z)`.

    Source: He et al. 2025 (IJCAI, arXiv 2506.17249), the CAP score.
    """

    alpha: float = 0.1

    name: ClassVar[str] = "cap"
    label: ClassVar[str] = "CAP"
    leaves_below: ClassVar[bool] = True
    needs_residual: ClassVar[bool] = True
    default_threshold: ClassVar[float] = 0.1
    threshold_range: ClassVar[tuple[float, float]] = (0.0, 2.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, alpha=require(self.name, "alpha", self.alpha, 0.0, 1000.0))

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        from scipy.special import expit, logsumexp

        logits = finite_logits(evidence)
        if evidence.residual is None:
            raise CriterionError(
                "'cap' needs the residuals of the exits, which are not in this trace or export: trace the model "
                "again, or export it with a policy of 'cap'"
            )
        added = self.alpha * finite(evidence.residual, "residuals", evidence.exit)
        return expit(added - logsumexp(logits, axis=1)), memory
