"""Which words are worth changing, and in what order they are tried."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.attacks.victims.answers import TokenizedText


def gradient_norms(look: TokenizedText) -> NDArray[np.float64]:
    """Norm of the gradient at each token embedding `(tokens,)`; several tables count as one long vector."""
    squares = torch.stack([g.double().square().sum(-1) for g in look.gradients])
    return squares.sum(0).sqrt().cpu().numpy()


class Importance(ABC):
    """Chooses and orders the words that a transformation is offered."""

    needs_gradient: ClassVar[bool] = False

    @abstractmethod
    def rank(self, look: TokenizedText, allowed: Sequence[int], rng: np.random.Generator) -> list[int]:
        """The words to try, out of those allowed, the most important first."""


@dataclass(frozen=True)
class EveryWord(Importance):
    """All words that are allowed, as they stand in the text."""

    def rank(self, look: TokenizedText, allowed: Sequence[int], rng: np.random.Generator) -> list[int]:
        """See `Importance`."""
        return list(allowed)


@dataclass(frozen=True)
class Shuffled(Importance):
    """All words that are allowed, in random order."""

    def rank(self, look: TokenizedText, allowed: Sequence[int], rng: np.random.Generator) -> list[int]:
        """See `Importance`."""
        return [allowed[i] for i in rng.permutation(len(allowed))]


@dataclass(frozen=True)
class TopGradient(Importance):
    """The words that own one of the `top_k` tokens with the largest gradient.

    Tokens of words that may not be changed are left out before the `top_k` are taken; otherwise separators
    and stop words would use the places up. Equal norms keep the order of the text.
    """

    needs_gradient: ClassVar[bool] = True
    top_k: int = 10

    def rank(self, look: TokenizedText, allowed: Sequence[int], rng: np.random.Generator) -> list[int]:
        """See `Importance`."""
        norms = gradient_norms(look)
        tokens = sorted((-norms[token], word) for word in allowed for token in look.tokens[word])
        return list(dict.fromkeys(word for _, word in tokens[: self.top_k]))


@dataclass(frozen=True)
class ByGradient(Importance):
    """All words that are allowed, ordered by the largest gradient among their tokens; equals as in the text."""

    needs_gradient: ClassVar[bool] = True

    def rank(self, look: TokenizedText, allowed: Sequence[int], rng: np.random.Generator) -> list[int]:
        """See `Importance`."""
        norms = gradient_norms(look)
        return sorted(allowed, key=lambda word: -max(norms[token] for token in look.tokens[word]))
