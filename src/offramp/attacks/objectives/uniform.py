"""Uniform predictions at every exit: the objectives of WAFFLE and DeepSloth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.numbers import log_softmax
from offramp.attacks.objectives.base import Objective
from offramp.attacks.victims.base import Answer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Uniform(Objective):
    """WAFFLE's objective: the exits' mean distance from uniform predictions, 0 (uniform) to 1 (certain).

    `mean_i ½ Σ_c |p_ic − 1/K| · K/(K−1)`, where the factor makes the range [0, 1] for every K. Done when
    the closeness `1 − value` is above `alpha`.

    Source: Coalson et al. 2023 (arXiv 2310.19152).
    """

    prefers_depth = False
    alpha: float = 0.9

    def score(self, answer: Answer, value: float) -> tuple[float, float]:
        """The value alone: exits count only through their probabilities."""
        return -value, 0.0

    def done(self, answer: Answer, value: float) -> bool:
        """Whether the exits are uniform enough."""
        return 1 - value > self.alpha

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        classes = logits.shape[-1]
        distances = (logits.float().softmax(-1) - 1 / classes).abs().sum(-1) / 2
        return distances.mean(-1) * (classes / (classes - 1))

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        classes = logits.shape[-1]
        distances = np.abs(np.exp(log_softmax(logits)) - 1 / classes).sum(-1) / 2
        distance: NDArray[np.float64] = distances.mean(-1) * (classes / (classes - 1))
        return distance


@dataclass(frozen=True)
class DeepSloth(Objective):
    """DeepSloth's objective: cross entropy of every exit with the uniform distribution, `Σ_i mean_c −log p_ic`.

    Source: Hong et al. 2021 (arXiv 2010.02432), made for images; here in a search over words.
    """

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        return -logits.float().log_softmax(-1).mean(-1).sum(-1)

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = -log_softmax(logits).mean(-1).sum(-1)
        return total
