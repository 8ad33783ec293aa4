"""Which words are worth changing, and the order in which they are tried."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from offramp.attacks.victims.answers import TokenizedText


class Importance(ABC):
    """Chooses and orders the words that a transformation may change.

    Attributes:
        needs_gradient: whether it reads the gradients of a `TokenizedText`.
    """

    needs_gradient: ClassVar[bool] = False

    @abstractmethod
    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        """The words to try, out of those allowed, the most important first."""


@dataclass(frozen=True)
class EveryWord(Importance):
    """All allowed words, in the order of the text."""

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        """See `Importance`."""
        return list(allowed)


@dataclass(frozen=True)
class Shuffled(Importance):
    """All allowed words, in random order."""

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        """See `Importance`."""
        return [allowed[i] for i in rng.permutation(len(allowed))]


@dataclass(frozen=True)
class TopGradient(Importance):
    """The words that own one of the `top_k` tokens with the largest gradient.

    Tokens of words that must not change are left out before the `top_k` are taken; otherwise separators and stop
    words would use them up. Equal norms keep the order of the text.
    """

    needs_gradient: ClassVar[bool] = True
    top_k: int = 10

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        """See `Importance`."""
        norms = gradient_norms(tokenized)
        tokens = sorted((-norms[token], word) for word in allowed for token in tokenized.tokens[word])
        return list(dict.fromkeys(word for _, word in tokens[: self.top_k]))


@dataclass(frozen=True)
class ByGradient(Importance):
    """All allowed words, ordered by the largest gradient among their tokens; equals keep the order of the text."""

    needs_gradient: ClassVar[bool] = True

    def rank(self, tokenized: TokenizedText, allowed: Sequence[int], rng: Generator) -> list[int]:
        """See `Importance`."""
        norms = gradient_norms(tokenized)
        return sorted(allowed, key=lambda word: -max(norms[token] for token in tokenized.tokens[word]))


def gradient_norms(tokenized: TokenizedText) -> NDArray[np.float64]:
    """Norm of the gradient at each token embedding `(tokens,)`; several tables count as one long vector."""
    import torch

    squares = torch.stack([g.double().square().sum(-1) for g in tokenized.gradients])
    return squares.sum(0).sqrt().cpu().numpy()
