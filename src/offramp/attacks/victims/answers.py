"""What passes through the door of the victim: answers, looks inside, and each example's account of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp.attacks.text.attacked_text import AttackedText

if TYPE_CHECKING:
    from torch import Tensor

Key = tuple[str, ...]  # the segments of a text: all that the model sees
REMEMBERED = 1024  # answers kept an example


@dataclass(frozen=True)
class Answer:
    """What the model does with one text.

    A victim that tells no exits, only seconds, has no logits, exit -1, layer 0, and seconds as its costs.

    Attributes:
        logits: `(exits, classes)` float32, divided by the policy's temperatures; `(exits, 0)` where the
            victim does not show them.
        exit: exit index at which the text leaves, 0-based.
        layer: the backbone layer of that exit, counted from 1.
        prediction: class index, or value for regression.
        cost: FLOPs spent.
        full_cost: FLOPs of the full model on this text.
        gates: `(exits,)` learned gates in [0, 1]; None where there are none, or none are shown.
    """

    logits: NDArray[np.float32]
    exit: int
    layer: int
    prediction: int | float
    cost: float
    full_cost: float
    gates: NDArray[np.float32] | None = None

    @property
    def last(self) -> bool:
        """Whether the text leaves at the last exit; never where no exits are told."""
        return self.exit >= 0 and self.exit == len(self.logits) - 1


@dataclass(frozen=True)
class TokenizedText:
    """A text as the model reads it, and what was learned by looking inside.

    Attributes:
        text: the text.
        ids: `(tokens,)` token ids, special tokens included, without padding.
        tokens: for each word the positions of its tokens; empty where truncation cut the word away.
        gradients: for each embedding table the gradient of the loss at every token embedding `(tokens, dim)`;
            empty where none was asked for.
    """

    text: AttackedText
    ids: list[int]
    tokens: list[tuple[int, ...]]
    gradients: tuple[Tensor, ...] = ()


@dataclass
class QueryBudget:
    """What one attacked example has cost so far, what it may still ask, and the answers it has already had.

    Attributes:
        max_forward: most texts that may be run for it; None for no limit.
        max_gradient: most gradients that may be taken for it; None for no limit.
        forward: texts run.
        gradient: gradients taken; the forward pass inside a gradient is not counted as a forward query too.
        zero_gradients: gradients that were zero everywhere.
        broken_gradients: gradients with NaN or infinities.
        seconds: time of the model calls, each call's time shared evenly by its texts.
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
        """Keys of the first texts that the budget allows; what was answered before is free."""
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
        """How many of the gradients wanted the budget allows."""
        return wanted if self.max_gradient is None else min(wanted, self.max_gradient - self.gradient)

    def record_gradient(self, look: TokenizedText) -> None:
        """Enter what a gradient that was taken for this example is worth."""
        size = sum(float(g.abs().sum()) for g in look.gradients)
        self.zero_gradients += size == 0
        self.broken_gradients += not np.isfinite(size)

    def record(self, key: Key, answer: Answer, seconds: float) -> None:
        """Enter a text that was run for this example."""
        self.answers[key] = answer
        self.forward += 1
        self.seconds += seconds

    def forget(self) -> None:
        """Drop the oldest answers where there are too many."""
        while len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)
