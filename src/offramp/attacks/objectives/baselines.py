"""Objectives other than SAME's: uniform predictions (WAFFLE, DeepSloth), and wrong ones (accuracy attacks).

As in `objectives`, logits are those the exit criterion sees, that is after the policy's temperatures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from offramp.attacks.objectives.base import Objective
from offramp.attacks.victims.answers import Answer

Which = Literal["last", "exit"]


def log_probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-softmax over the last dimension in float64, finite for finite logits."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@dataclass(frozen=True)
class Uniform(Objective):
    """WAFFLE's: how far the exits are from uniform predictions, 0 (uniform) to 1 (certain), averaged.

    `mean_i ½ Σ_c |p_ic − 1/K| · K/(K−1)`, in which the factor makes the span [0, 1] for every K. Done where
    the closeness `1 − value` is above `alpha`.

    Source: Coalson et al. 2023 (arXiv 2310.19152).
    """

    needs_probabilities: ClassVar[bool] = True
    alpha: float = 0.9

    def score(self, answer: Answer, value: float) -> tuple[float, float]:
        """By the value alone: exits count only through their probabilities."""
        return -value, 0.0

    def done(self, answer: Answer, value: float) -> bool:
        """Whether the exits are uniform enough."""
        return 1 - value > self.alpha

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """See the class."""
        classes = logits.shape[-1]
        distances = (logits.float().softmax(-1) - 1 / classes).abs().sum(-1) / 2
        return distances.mean(-1) * (classes / (classes - 1))

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """See the class."""
        classes = logits.shape[-1]
        distances = np.abs(np.exp(log_probabilities(logits)) - 1 / classes).sum(-1) / 2
        far: NDArray[np.float64] = distances.mean(-1) * (classes / (classes - 1))
        return far


@dataclass(frozen=True)
class DeepSloth(Objective):
    """DeepSloth's: cross entropy of every exit with the uniform distribution, `Σ_i mean_c −log p_ic`.

    Source: Hong et al. 2021 (arXiv 2010.02432), made for images; here in a search over words.
    """

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """See the class."""
        return -F.log_softmax(logits.float(), dim=-1).mean(-1).sum(-1)

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """See the class."""
        total: NDArray[np.float64] = -log_probabilities(logits).mean(-1).sum(-1)
        return total


@dataclass(frozen=True)
class Misclassification(Objective):
    """An accuracy attack: the log-probability of the class that was predicted, `log p_y`.

    The class is the model's own answer to the clean text, so that data without labels will do.

    Attributes:
        which: `last`, the last exit, as if the model never left early; or `exit`, the exit that is taken.
        label: the class y; None until the clean answer is known.
    """

    needs_probabilities: ClassVar[bool] = True
    which: Which = "exit"
    label: int | None = None

    def against(self, clean: Answer) -> Misclassification:
        """The objective with the class that the model predicts for the clean text."""
        place = self._place(clean.exit)
        return replace(self, label=int(clean.logits[place].argmax()))

    def score(self, answer: Answer, value: float) -> tuple[float, float]:
        """By the probability alone: nothing is said about exits."""
        return -value, 0.0

    def done(self, answer: Answer, value: float) -> bool:
        """Whether the exit predicts another class."""
        return int(answer.logits[self._place(answer.exit)].argmax()) != self.label

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """See the class."""
        assert self.label is not None
        rows = torch.arange(len(logits), device=logits.device)
        log_p = F.log_softmax(logits.float(), dim=-1)
        return log_p[rows, exit if self.which == "exit" else -1, self.label]

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """See the class."""
        assert self.label is not None
        rows = np.arange(len(logits))
        chosen: NDArray[np.float64] = log_probabilities(logits)[
            rows, exit if self.which == "exit" else -1, self.label
        ]
        return chosen

    def _place(self, exit: int) -> int:
        return exit if self.which == "exit" else -1
