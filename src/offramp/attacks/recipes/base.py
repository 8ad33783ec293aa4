"""A recipe: objective × importance × transformation × constraints × search. A paper is one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.base import Objective
from offramp.attacks.search.base import Search
from offramp.attacks.search.importance import Importance
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.base import Transformation
from offramp.attacks.victims.answers import TokenizedText

WIDER = 4  # how many times as many edits are drawn where constraints will refuse some


@dataclass(frozen=True)
class Move:
    """One way to change a text: which words, and into what."""

    importance: Importance
    transformation: Transformation


@dataclass(frozen=True)
class Recipe:
    """An attack, ready to run on a victim.

    Attributes:
        name: as in `RECIPES`.
        objective: what the search makes small, and the gradient is of.
        moves: ways to change a text; they share `top_n` evenly.
        constraints: which words may change, how many, and how far.
        search: the way through the texts proposed.
        top_n: edits proposed for each text that is looked at, or for each word in a search word by word.
        queries: most forward queries an example where the user sets no limit; None for none.
        min_similarity: least similarity where the user sets none; 0 for none.
    """

    name: str
    objective: Objective
    moves: tuple[Move, ...]
    constraints: Constraints
    search: Search
    top_n: int = 100
    queries: int | None = None
    min_similarity: float = 0.0

    @property
    def needs_gradient(self) -> bool:
        """Whether the attack looks inside the model."""
        return any(m.importance.needs_gradient or m.transformation.needs_gradient for m in self.moves)

    def propose(
        self, look: TokenizedText, rng: np.random.Generator, words: Sequence[int] | None = None
    ) -> list[AttackedText]:
        """The texts to try next, each one edit away from the one looked at; best first in each move.

        Args:
            look: the text as the model reads it.
            rng: the example's own generator.
            words: the words to change, whatever the importance says; None for those it ranks.
        """
        allowed = self.constraints.allowed(look)
        found: dict[AttackedText, None] = {}
        for move, share in zip(self.moves, _shares(self.top_n, len(self.moves)), strict=True):
            ranked = move.importance.rank(look, allowed, rng) if words is None else words
            wanted = share * (WIDER if self.constraints.selective else 1)
            edits = move.transformation.edits(look, ranked, wanted, rng)
            texts = [look.text.replace(*edit) for edit in edits]
            found |= dict.fromkeys([text for text in texts if self.constraints.permits(text)][:share])
        return list(found)


def _shares(total: int, parts: int) -> Sequence[int]:
    """`total` split evenly; the first parts get what is over."""
    return [total // parts + (i < total % parts) for i in range(parts)]
