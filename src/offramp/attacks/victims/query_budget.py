"""What each attacked example has cost, and what it may still ask."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import Answer, Key, TokenizedText

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
