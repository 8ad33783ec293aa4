"""The objective of SAME: uniform predictions, and neighbouring exits that disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.numbers import log_softmax
from offramp.attacks.objectives.base import Objective, require_classes
from offramp.attacks.options import Weighting

if TYPE_CHECKING:
    from torch import Tensor

EARLIER, GROWTH = 0.1, 1.2  # weight of the exits before the current one; growth from the current one on


@dataclass(frozen=True)
class Same(Objective):
    """The loss of SAME: towards uniform predictions, and towards neighbouring exits that disagree.

    `L = λ·L_cross + (1−λ)·L_unif`, with weights `w_i` of 0.1 for exits before the current one and
    `1.2^(i−e)` from the current one on; `L_unif = mean_i w_i · mean_c(−(1/K) log p_ic)`; `L_cross = mean_i w_i ·
    CE(z_i, t_i)`, where the target `t_1` is the first exit's prediction, and any later `t_i` is exit i's second
    class where it agrees with the exit before it, else its prediction. Targets carry no gradient.

    Attributes:
        disagreement_weight: weight λ of `L_cross`.
        weighting: `growing` as above; `flat`: every `w_i` is 1.

    Source: Chen et al. 2023 (arXiv 2305.12228).
    """

    disagreement_weight: float = 0.8
    weighting: Weighting = "growing"

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """The loss `(batch,)` in float32, finite for finite logits; `ConfigError` for fewer than two classes."""
        import torch

        require_classes(logits.shape[-1])
        log_p = logits.float().log_softmax(-1)
        steps = torch.arange(logits.shape[1], device=logits.device) - exit[:, None]
        weights = torch.where(steps < 0, EARLIER, GROWTH ** steps.float())
        if self.weighting == "flat":
            weights = torch.ones_like(weights)
        first = logits.detach().argmax(-1)
        second = logits.detach().scatter(-1, first[..., None], -float("inf")).argmax(-1)
        agrees = first.new_zeros(first.shape).bool()
        agrees[:, 1:] = first[:, 1:] == first[:, :-1]
        targets = second.where(agrees, first)  # with these, every exit differs from the one before it
        uniform = (-log_p / logits.shape[-1]).mean(-1)
        cross = -log_p.gather(-1, targets[..., None]).squeeze(-1)
        mixed = self.disagreement_weight * cross + (1 - self.disagreement_weight) * uniform
        return (weights * mixed).mean(-1)

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """The loss in numpy and float64, computed exit by exit as in the formula."""
        return self.least(logits, exit, logits.shape[1])

    def least(
        self, logits: NDArray[np.floating], exit: NDArray[np.integer], exits: int
    ) -> NDArray[np.float64]:
        """The loss of the first exits, and for each later one the least that any prediction gives."""
        batch, run, classes = logits.shape
        require_classes(classes)
        rows = np.arange(batch)
        log_p = log_softmax(logits)
        total, before = np.zeros(batch), np.full(batch, -1)
        for i in range(exits):
            weight = np.where(i < exit, EARLIER, GROWTH ** (i - exit).astype(np.float64))
            if self.weighting == "flat":
                weight = np.ones(batch)
            if i >= run:
                total += weight * self._least_term(classes)
                continue
            predicted = logits[:, i].argmax(-1)
            others = logits[:, i].astype(np.float64)
            others[rows, predicted] = -np.inf
            target = np.where(predicted == before, others.argmax(-1), predicted)
            cross = -log_p[rows, i, target]
            uniform = (-log_p[:, i] / classes).mean(-1)
            total += weight * (self.disagreement_weight * cross + (1 - self.disagreement_weight) * uniform)
            before = predicted
        return total / exits

    def _least_term(self, classes: int) -> float:
        """The least `λ·cross + (1−λ)·unif` of one exit: Gibbs' inequality, with the target's share of the weights."""
        other = (1 - self.disagreement_weight) / classes**2
        weights = np.array([self.disagreement_weight + other, *[other] * (classes - 1)])
        share = weights[weights > 0] / weights.sum()
        return float(-(weights[weights > 0] * np.log(share)).sum())
