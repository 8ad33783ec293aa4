"""A recipe: objective × importance × transformation × constraints × search. A paper is one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.account import Look
from offramp.attacks.constraints import Constraints
from offramp.attacks.importance import Importance
from offramp.attacks.objectives import Objective
from offramp.attacks.search import Search
from offramp.attacks.text import AttackedText
from offramp.attacks.transformations import Transformation


@dataclass(frozen=True)
class Options:
    """What can be set of every recipe; the defaults are those of SAME.

    Attributes:
        lam: weight λ of the part of the loss that makes neighbouring exits disagree, 0 to 1.
        top_n: edits tried for each text of the beam in each round.
        top_k: tokens, by gradient norm, whose words may get character changes.
        beam: texts kept after each round.
        rounds: most rounds; each changes one more word.
        words: share of the words of which at most `max(3, ⌈share · words⌉)` change, or, as an int, their
            number.
        queries: most forward queries an example; None for no limit.
    """

    lam: float = 0.8
    top_n: int = 100
    top_k: int = 10
    beam: int = 5
    rounds: int = 10
    words: float | int = 0.1
    queries: int | None = None

    def __post_init__(self) -> None:
        for name in ("top_n", "top_k", "beam", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"lam is a weight between 0 and 1, got {self.lam}")
        if isinstance(self.words, int) and self.words < 1:
            raise ConfigError(f"words as a number must be at least 1, got {self.words}")
        if isinstance(self.words, float) and not 0 < self.words <= 1:
            raise ConfigError(
                f"words as a share must lie in (0, 1], got {self.words}; give an int for a number"
            )
        if self.queries is not None and self.queries < 1:
            raise ConfigError(f"queries must be at least 1, got {self.queries}")

    @classmethod
    def of(cls, **options: Any) -> Options:
        """Options by name; `ConfigError` with the near miss for a name there is none of."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise ConfigError(unknown_name("attack option", name, known))
        return cls(**options)


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
