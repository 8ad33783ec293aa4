"""A recipe: objective × importance × transformation × constraints × search. A paper is one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from offramp.attacks.account import Look
from offramp.attacks.constraints import Constraints
from offramp.attacks.importance import Importance
from offramp.attacks.objectives import Objective
from offramp.attacks.search import Search
from offramp.attacks.text import AttackedText
from offramp.attacks.transformations import Transformation


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
        constraints: which words may change, and how many.
        search: the way through the texts proposed.
        top_n: edits proposed for each text that is looked at.
    """

    name: str
    objective: Objective
    moves: tuple[Move, ...]
    constraints: Constraints
    search: Search
    top_n: int = 100

    @property
    def needs_gradient(self) -> bool:
        """Whether the attack looks inside the model."""
        return any(m.importance.needs_gradient or m.transformation.needs_gradient for m in self.moves)

    def propose(self, look: Look, rng: np.random.Generator) -> list[AttackedText]:
        """The texts to try next, each one edit away from the one looked at; best first in each move."""
        allowed = self.constraints.allowed(look)
        shares = _shares(self.top_n, len(self.moves))
        found: dict[AttackedText, None] = {}
        for move, share in zip(self.moves, shares, strict=True):
            words = move.importance.rank(look, allowed, rng)
            edits = move.transformation.edits(look, words, share, rng)
            found |= dict.fromkeys(look.text.replace(*edit) for edit in edits)
        return list(found)


def _shares(total: int, parts: int) -> Sequence[int]:
    """`total` split evenly; the first parts get what is over."""
    return [total // parts + (i < total % parts) for i in range(parts)]
