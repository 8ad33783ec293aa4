"""What an attack minimises: functions of the exits' logits, for gradients (torch) and for scores (numpy).

Logits are those that the exit criterion reads: after the policy's temperatures. Torch is imported on use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
from offramp._core.numbers import log_softmax
from offramp.attacks.options import Weighting
from offramp.attacks.victims.base import Answer

if TYPE_CHECKING:
    from torch import Tensor


def require_classes(classes: int) -> None:
    """Raise `ConfigError` for fewer than two classes: the losses have no meaning for regression."""
    if classes < 2:
        raise ConfigError(
            "the attack needs probabilities of at least 2 classes, but the model is a regression with one "
            "output: use a recipe that needs none, such as 'random' or 'slowbert'"
        )


class Objective(ABC):
    """The quantity that an attack minimises, and when the attack is done.

    By default a search prefers a later exit layer, then a lower value. It is done at the last exit.
    """

    def against(self, clean: Answer) -> Objective:
        """The objective for one example, given the answer to its clean text."""
        return self

    def score(self, answer: Answer, value: float) -> tuple[float, float]:
        """The strength of a text. Greater is stronger."""
        return answer.layer, -value

    def done(self, answer: Answer, value: float) -> bool:
        """Whether the attack has reached its goal."""
        return answer.last

    @abstractmethod
    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """`(batch,)`, from logits `(batch, exits, classes)` and current exits `(batch,)`; differentiable."""

    @abstractmethod
    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """The loss in numpy, which orders texts in a search."""


@dataclass(frozen=True)
class ExitDepth(Objective):
    """A loss of zero everywhere: the search sees only the exit layer."""

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        return logits.new_zeros(len(logits))

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.zeros(len(logits))


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
        batch, exits, classes = logits.shape
        require_classes(classes)
        rows = np.arange(batch)
        log_p = log_softmax(logits)
        total, before = np.zeros(batch), np.full(batch, -1)
        for i in range(exits):
            weight = np.where(i < exit, EARLIER, GROWTH ** (i - exit).astype(np.float64))
            if self.weighting == "flat":
                weight = np.ones(batch)
            predicted = logits[:, i].argmax(-1)
            others = logits[:, i].astype(np.float64)
            others[rows, predicted] = -np.inf
            target = np.where(predicted == before, others.argmax(-1), predicted)
            cross = -log_p[rows, i, target]
            uniform = (-log_p[:, i] / classes).mean(-1)
            total += weight * (self.disagreement_weight * cross + (1 - self.disagreement_weight) * uniform)
            before = predicted
        return total / exits


@dataclass(frozen=True)
class Uniform(Objective):
    """WAFFLE's objective: the exits' mean distance from uniform predictions, 0 (uniform) to 1 (certain).

    `mean_i ½ Σ_c |p_ic − 1/K| · K/(K−1)`, where the factor makes the range [0, 1] for every K. Done when
    the closeness `1 − value` is above `alpha`.

    Source: Coalson et al. 2023 (arXiv 2310.19152).
    """

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


AttackedExit = Literal["last", "exit"]


@dataclass(frozen=True)
class Misclassification(Objective):
    """The log-probability of the predicted class, `log p_y`, at the attacked exit.

    The class is the model's own answer to the clean text, so no labels are needed. The `last` exit is attacked as if
    the model never left early.
    """

    attacked: AttackedExit = "exit"
    label: int | None = None  # the class y; None until the clean answer is known

    def against(self, clean: Answer) -> Misclassification:
        """The objective with the class that the model predicts for the clean text."""
        return replace(self, label=self._prediction(clean))

    def score(self, answer: Answer, value: float) -> tuple[float, float]:
        """The probability alone: exits do not count."""
        return -value, 0.0

    def done(self, answer: Answer, value: float) -> bool:
        """Whether the exit predicts another class."""
        return self._prediction(answer) != self.label

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        import torch

        assert self.label is not None
        rows = torch.arange(len(logits), device=logits.device)
        log_p = logits.float().log_softmax(-1)
        return log_p[rows, exit if self.attacked == "exit" else -1, self.label]

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        assert self.label is not None
        exits = exit if self.attacked == "exit" else np.full_like(exit, -1)
        log_p: NDArray[np.float64] = log_softmax(logits)[np.arange(len(logits)), exits, self.label]
        return log_p

    def _prediction(self, answer: Answer) -> int:
        return int(answer.logits[answer.exit if self.attacked == "exit" else -1].argmax())
