"""What an attack makes small: functions of the exits' logits, for gradients (torch) and for scores (numpy).

Logits are those the exit criterion sees, that is after the policy's temperatures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from offramp._core.errors import ConfigError
from offramp.attacks.options import Weighting
from offramp.attacks.victims.answers import Answer

EARLIER, GROWTH = 0.1, 1.2  # weight of the exits before the current one; growth from the current one on


def same_loss(logits: Tensor, exit: Tensor, lam: float = 0.8, weighting: Weighting = "growing") -> Tensor:
    """The loss of SAME: towards uniform predictions, and towards neighbouring exits that disagree.

    `L = λ·L_cross + (1−λ)·L_unif`, with weights `w_i` of 0.1 for exits before the current one and
    `1.2^(i−e)` from it on; `L_unif = mean_i w_i · mean_c(−(1/K) log p_ic)`; `L_cross = mean_i w_i · CE(z_i,
    t_i)`, where the target `t_1` is the first exit's prediction, and any later `t_i` is exit i's second
    class where it agrees with the exit before it, else its prediction.

    Args:
        logits: `(batch, exits, classes)`, divided by the temperatures.
        exit: `(batch,)` index of the current exit, 0-based.
        lam: weight of `L_cross`.
        weighting: `growing` as above; `flat`: every `w_i` is 1.

    Returns:
        `(batch,)` float32; finite for finite logits. Targets carry no gradient.

    Raises:
        ConfigError: fewer than two classes.

    Source: Chen et al. 2023 (arXiv 2305.12228).
    """
    require_classes(logits.shape[-1])
    log_p = F.log_softmax(logits.float(), dim=-1)
    steps = torch.arange(logits.shape[1], device=logits.device) - exit[:, None]
    weights = torch.where(steps < 0, EARLIER, GROWTH ** steps.float())
    if weighting == "flat":
        weights = torch.ones_like(weights)
    uniform = (-log_p / logits.shape[-1]).mean(-1)
    cross = -log_p.gather(-1, _disagreeing(logits.detach())[..., None]).squeeze(-1)
    return (weights * (lam * cross + (1 - lam) * uniform)).mean(-1)


def _disagreeing(logits: Tensor) -> Tensor:
    """Targets `(batch, exits)` under which every exit differs from the one before it."""
    first = logits.argmax(-1)
    second = logits.scatter(-1, first[..., None], -torch.inf).argmax(-1)
    agrees = torch.zeros_like(first, dtype=torch.bool)
    agrees[:, 1:] = first[:, 1:] == first[:, :-1]
    return torch.where(agrees, second, first)


def same_loss_reference(
    logits: NDArray[np.floating],
    exit: NDArray[np.integer],
    lam: float = 0.8,
    weighting: Weighting = "growing",
) -> NDArray[np.float64]:
    """`same_loss` in numpy, exit by exit as the formula reads; arguments and result as there, in float64."""
    batch, exits, classes = logits.shape
    require_classes(classes)
    rows = np.arange(batch)
    shifted = np.asarray(logits, dtype=np.float64) - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    total, before = np.zeros(batch), np.full(batch, -1)
    for i in range(exits):
        weight = np.where(i < exit, EARLIER, GROWTH ** (i - exit).astype(np.float64))
        if weighting == "flat":
            weight = np.ones(batch)
        predicted = shifted[:, i].argmax(-1)
        others = shifted[:, i].copy()
        others[rows, predicted] = -np.inf
        target = np.where(predicted == before, others.argmax(-1), predicted)
        cross = -log_p[rows, i, target]
        uniform = (-log_p[:, i] / classes).mean(-1)
        total += weight * (lam * cross + (1 - lam) * uniform)
        before = predicted
    return total / exits


def require_classes(classes: int) -> None:
    """Raise `ConfigError` for fewer than two classes: the losses mean nothing for a regression."""
    if classes < 2:
        raise ConfigError(
            "the attack needs probabilities of at least 2 classes, but the model is a regression with one "
            "output: use a recipe that needs none, such as 'random' or 'slowbert'"
        )


class Objective(ABC):
    """What an attack makes small, and when it is done.

    By default a search goes for the exit layer first and the value second, and is done at the last exit.
    """

    needs_probabilities: ClassVar[bool] = False  # whether it means nothing where a victim shows none

    def against(self, clean: Answer) -> Objective:
        """The objective for one example, given the answer to its clean text."""
        return self

    def score(self, answer: Answer, value: float) -> tuple[float, float]:
        """How strong a text is. Greater is stronger."""
        return answer.layer, -value

    def done(self, answer: Answer, value: float) -> bool:
        """Whether nothing is left to be asked."""
        return answer.last

    @abstractmethod
    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """`(batch,)`, from logits `(batch, exits, classes)` and current exits `(batch,)`; differentiable."""

    @abstractmethod
    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """The same in numpy: what a search orders texts by."""


@dataclass(frozen=True)
class Same(Objective):
    """The loss of SAME with its weight λ and the weighting of its exits; see `same_loss`."""

    lam: float = 0.8
    weighting: Weighting = "growing"

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """See `same_loss`."""
        return same_loss(logits, exit, self.lam, self.weighting)

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """See `same_loss_reference`."""
        return same_loss_reference(logits, exit, self.lam, self.weighting)


@dataclass(frozen=True)
class ExitDepth(Objective):
    """No loss at all: the search sees the exit layer and nothing else."""

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """Zero everywhere, without a gradient."""
        return torch.zeros(len(logits), device=logits.device)

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """Zero everywhere, so that texts of equal exit layers are equals."""
        return np.zeros(len(logits))
