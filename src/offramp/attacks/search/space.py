"""What a search works with: an objective, ways to change a text, and constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.text.attacked_text import AttackedText

if TYPE_CHECKING:
    from offramp.attacks.objectives.base import Objective
    from offramp.attacks.search.importance import Importance
    from offramp.attacks.transformations.base import Transformation
    from offramp.attacks.victims.answers import TokenizedText

OVERSAMPLING = 4  # how many times as many edits are drawn where the constraints will refuse some


@dataclass(frozen=True)
class Move:
    """One way to change a text: which words to change, and what to change them into."""

    importance: Importance
    transformation: Transformation


@dataclass(frozen=True)
class SearchSpace:
    """The texts that a search may try, and what it makes small.

    Attributes:
        objective: what the search makes small, and what gradients are taken of.
        moves: ways to change a text; they share `top_n` evenly.
        constraints: which words may change, how many, and how far.
        top_n: edits proposed for each text, or for each word in a search that goes word by word.
    """

    objective: Objective
    moves: tuple[Move, ...]
    constraints: Constraints
    top_n: int = 100

    @property
    def needs_gradient(self) -> bool:
        """Whether a move uses the gradient of the objective."""
        return any(m.importance.needs_gradient or m.transformation.needs_gradient for m in self.moves)

    def propose(
        self, tokenized: TokenizedText, rng: np.random.Generator, words: Sequence[int] | None = None
    ) -> list[AttackedText]:
        """Propose texts that are one edit away, the most promising of each move first.

        Args:
            tokenized: the text to change, as the model reads it.
            rng: the example's own generator.
            words: the words to change; None for those that each move's importance ranks.
        """
        allowed = self.constraints.allowed(tokenized)
        proposed: dict[AttackedText, None] = {}
        for i, move in enumerate(self.moves):
            # The moves share `top_n` evenly; the first ones get what is left over.
            share = self.top_n // len(self.moves) + (i < self.top_n % len(self.moves))
            ranked = move.importance.rank(tokenized, allowed, rng) if words is None else words
            drawn = share * (OVERSAMPLING if self.constraints.selective else 1)
            edits = move.transformation.edits(tokenized, ranked, drawn, rng)
            texts = [tokenized.text.replace(*edit) for edit in edits]
            proposed |= dict.fromkeys([text for text in texts if self.constraints.permits(text)][:share])
        return list(proposed)
