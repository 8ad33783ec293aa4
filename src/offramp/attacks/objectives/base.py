"""What an attack minimises: a function of the exits' logits, for gradients (torch) and for scores (numpy).

The logits are divided by the policy's temperatures, as the exit criterion reads them. Torch is imported on use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
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

    Attributes:
        prefers_depth: whether `score` is this default.
    """

    prefers_depth: ClassVar[bool] = True

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

    def least(
        self, logits: NDArray[np.floating], exit: NDArray[np.integer], exits: int
    ) -> NDArray[np.float64]:
        """A lower bound of the value `(batch,)`, from the logits of the first exits only.

        Args:
            logits: `(batch, run, classes)` of the first `run` exits, those up to the current one at least.
            exit: `(batch,)` current exits.
            exits: number of all exits; with all of them run, the bound is the value.
        """
        return self.value(logits, exit) if logits.shape[1] == exits else np.full(len(logits), -np.inf)


@dataclass(frozen=True)
class ExitDepth(Objective):
    """A loss of zero everywhere: the search sees only the exit layer."""

    def loss(self, logits: Tensor, exit: Tensor) -> Tensor:
        return logits.new_zeros(len(logits))

    def value(self, logits: NDArray[np.floating], exit: NDArray[np.integer]) -> NDArray[np.float64]:
        return np.zeros(len(logits))

    def least(
        self, logits: NDArray[np.floating], exit: NDArray[np.integer], exits: int
    ) -> NDArray[np.float64]:
        return np.zeros(len(logits))
