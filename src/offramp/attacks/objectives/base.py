"""What an attack makes small: functions of the exits' logits, for gradients (torch) and for scores (numpy).

Logits are those that the exit criterion reads: after the policy's temperatures. Torch is imported on use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
from offramp.attacks.victims.answers import Answer

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
    """What an attack makes small, and when it is done.

    By default a search prefers a later exit layer, then a lower value, and is done at the last exit.
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
        """The same in numpy: it orders texts in a search."""


@dataclass(frozen=True)
class ExitDepth(Objective):
    """No loss: the search sees the exit layer alone."""

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        """Zero everywhere, without a gradient."""
        return logits.new_zeros(len(logits))

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        """Zero everywhere, so that texts of equal exit layers are equal."""
        return np.zeros(len(logits))
