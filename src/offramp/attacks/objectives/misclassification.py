"""Wrong answers: the objective of accuracy attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.numbers import log_softmax
from offramp.attacks.objectives.base import Objective
from offramp.attacks.victims.base import Answer

if TYPE_CHECKING:
    from torch import Tensor

AttackedExit = Literal["last", "exit"]


@dataclass(frozen=True)
class Misclassification(Objective):
    """The log-probability of the predicted class, `log p_y`, at the attacked exit.

    The class is the model's own answer to the clean text, so no labels are needed. The `last` exit is attacked as if
    the model never left early.
    """

    prefers_depth = False
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
        return int(answer.prediction if self.attacked == "exit" else answer.logits[-1].argmax())
