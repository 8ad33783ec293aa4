"""What a victim returns, and what each attacked example has cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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


REMEMBERED = 1024  # answers kept per example


@dataclass
class QueryBudget:
    """The cost of one attacked example so far, its limits, and the answers it has had.

    Attributes:
        max_forward: most texts that may be run for it; None for no limit.
        max_gradient: most gradients that may be taken for it; None for no limit.
        forward: texts run.
        gradient: gradients taken; the forward pass inside a gradient does not count as a forward query.
        zero_gradients: gradients that were zero everywhere.
        broken_gradients: gradients with NaN or infinities.
        seconds: time of the model calls; the texts of a call share its time evenly.
        answers: the last answers, by the segments of the text.
    """

    max_forward: int | None = None
    max_gradient: int | None = None
    forward: int = 0
    gradient: int = 0
    zero_gradients: int = 0
    broken_gradients: int = 0
    seconds: float = 0.0
    answers: OrderedDict[Key, Answer] = field(default_factory=OrderedDict, repr=False)

    def within_budget(self, texts: Sequence[AttackedText]) -> list[Key]:
        """Keys of the first texts that the budget allows; a text that was answered before is free."""
        keys: list[Key] = []
        new: set[Key] = set()
        for text in texts:
            key = text.segments
            if key not in self.answers and key not in new:
                if self.max_forward is not None and self.forward + len(new) >= self.max_forward:
                    break
                new.add(key)
            keys.append(key)
        return keys

    def gradients_left(self, wanted: int) -> int:
        """How many of the wanted gradients the budget allows."""
        return wanted if self.max_gradient is None else min(wanted, self.max_gradient - self.gradient)

    def record_gradient(self, tokenized: TokenizedText) -> None:
        """Count a gradient that was zero or broken."""
        size = sum(float(g.abs().sum()) for g in tokenized.gradients)
        self.zero_gradients += size == 0
        self.broken_gradients += not np.isfinite(size)

    def record(self, key: Key, answer: Answer, seconds: float) -> None:
        """Count a text that was run for this example."""
        self.answers[key] = answer
        self.forward += 1
        self.seconds += seconds

    def forget(self) -> None:
        """Drop the oldest answers if there are too many."""
        while len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)
