"""The space of a search: an objective, constraints, the words to change, and their replacements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.base import Objective
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.base import Transformation
from offramp.attacks.victims.base import TokenizedText


class Importance(ABC):
    """Chooses and orders the words that a transformation may change."""

    needs_gradient: ClassVar[bool] = False  # whether it reads the gradients of a `TokenizedText`

    @abstractmethod
    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        """The allowed words to try, the most important first."""


@dataclass(frozen=True)
class EveryWord(Importance):
    """All allowed words, in the order of the text."""

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        return list(allowed)


@dataclass(frozen=True)
class Shuffled(Importance):
    """All allowed words, in random order."""

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        return [allowed[i] for i in rng.permutation(len(allowed))]


@dataclass(frozen=True)
class TopGradient(Importance):
    """The words that own one of the `top_k` tokens with the largest gradient.

    Tokens of words that must not change are dropped before the `top_k` are taken; otherwise separators and stop
    words would fill them. Equal norms keep the order of the text.
    """

    needs_gradient: ClassVar[bool] = True
    top_k: int = 10

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        norms = gradient_norms(tokenized)
        tokens = sorted((-norms[token], word) for word in allowed for token in tokenized.tokens[word])
        return list(dict.fromkeys(word for _, word in tokens[: self.top_k]))


@dataclass(frozen=True)
class ByGradient(Importance):
    """All allowed words, ordered by the largest gradient among their tokens; equals keep the order of the text."""

    needs_gradient: ClassVar[bool] = True

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        norms = gradient_norms(tokenized)
        return sorted(allowed, key=lambda word: -max(norms[token] for token in tokenized.tokens[word]))


def gradient_norms(tokenized: TokenizedText) -> NDArray[np.float64]:
    """Norm of the gradient at each token embedding `(tokens,)`; several tables count as one long vector."""
    import torch

    squares = torch.stack([g.double().square().sum(-1) for g in tokenized.gradients])
    return squares.sum(0).sqrt().cpu().numpy()


OVERSAMPLING = 4  # factor of the edits to draw if the constraints may refuse some


@dataclass(frozen=True)
class Move:
    """One way to change a text: the words to change, and their replacements."""

    importance: Importance
    transformation: Transformation


@dataclass(frozen=True)
class SearchSpace:
    """The texts that a search may try, and the objective that it minimises."""

    objective: Objective  # gradients are taken of it too
    moves: tuple[Move, ...]  # they share `top_n` evenly
    constraints: Constraints
    top_n: int = 100  # edits proposed for each text, or for each word in a search word by word

    @property
    def needs_gradient(self) -> bool:
        """Whether a move uses the gradient of the objective."""
        return any(m.importance.needs_gradient or m.transformation.needs_gradient for m in self.moves)

    def propose(
        self, tokenized: TokenizedText, rng: Generator, words: Sequence[int] | None = None
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
            # The moves share `top_n` evenly; the first moves get the remainder.
            share = self.top_n // len(self.moves) + (i < self.top_n % len(self.moves))
            ranked = move.importance.rank(tokenized, allowed, rng) if words is None else words
            drawn = share * (OVERSAMPLING if self.constraints.selective else 1)
            edits = move.transformation.edits(tokenized, ranked, drawn, rng)
            texts = [tokenized.text.replace(*edit) for edit in edits]
            proposed |= dict.fromkeys([text for text in texts if self.constraints.permits(text)][:share])
        return list(proposed)
