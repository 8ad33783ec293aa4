"""What a victim returns: answers to texts, and texts as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp.attacks.text.attacked_text import AttackedText

if TYPE_CHECKING:
    from torch import Tensor

Key = tuple[str, ...]  # the segments of a text: all that the model sees


@dataclass(frozen=True)
class Answer:
    """The model's answer to one text.

    A victim that reports seconds alone has no logits, exit -1 and layer 0.

    Attributes:
        logits: `(exits, classes)` float32, divided by the policy's temperatures; `(exits, 0)` if the victim does not
            show them.
        exit: exit index at which the text leaves, 0-based.
        layer: the backbone layer of that exit, counted from 1.
        prediction: class index, or value for regression.
        spent: FLOPs spent; for a function, its layers or seconds.
        full_spent: the full model's, in the same unit.
        gates: `(exits,)` learned gates in [0, 1]; None if there are none, or the victim does not show them.
    """

    logits: NDArray[np.float32]
    exit: int
    layer: int
    prediction: int | float
    spent: float
    full_spent: float
    gates: NDArray[np.float32] | None = None

    @property
    def last(self) -> bool:
        """Whether the text leaves at the last exit; never if the victim reports no exits."""
        return self.exit >= 0 and self.exit == len(self.logits) - 1


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model reads it, with gradients if they were taken.

    Attributes:
        text: the text.
        ids: `(tokens,)` token ids, special tokens included, without padding.
        tokens: for each word the positions of its tokens; empty if truncation cut the word away.
        gradients: for each embedding table the gradient of the loss at every token embedding `(tokens, dim)`; empty
            if none was taken.
    """

    text: AttackedText
    ids: list[int]
    tokens: list[tuple[int, ...]]
    gradients: tuple[Tensor, ...] = ()

    def with_text(self, text: AttackedText) -> TokenizedText:
        """A later version of the text, with the tokens and gradients of this one."""
        return replace(self, text=text)
