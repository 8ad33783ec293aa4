"""Edits of single words, proposed by transformations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import zip_longest
from typing import ClassVar, NamedTuple

from numpy.random import Generator

from offramp.attacks.victims.base import TokenizedText


class Edit(NamedTuple):
    """Replace the word at `position` (its index in the text) by `word`."""

    position: int
    word: str


class Transformation(ABC):
    """Proposes edits of a text."""

    needs_gradient: ClassVar[bool] = False  # whether it reads the gradients of a `TokenizedText`

    @abstractmethod
    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """Propose at most `top_n` edits of the given words, the most promising first."""


class WordByWord(Transformation):
    """Proposes replacements for each word separately; the words take turns."""

    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """The best replacement of each word, then the second ones, and so on."""
        columns = [[Edit(i, word) for word in self.replacements(tokenized, i, rng)] for i in words]
        return take_turns(columns, top_n)

    @abstractmethod
    def replacements(self, tokenized: TokenizedText, position: int, rng: Generator) -> list[str]:
        """Return the words that may replace the word at a position, the most promising first."""


def take_turns(columns: Sequence[Sequence[Edit]], top_n: int) -> list[Edit]:
    """The first edit of each column, then the second ones, and so on; each once, at most `top_n`."""
    turns = zip_longest(*columns)
    return list(dict.fromkeys(edit for turn in turns for edit in turn if edit is not None))[:top_n]


def cased_like(word: str, original: str) -> str:
    """A word in the upper or lower case of the original: `Film` for `film` and `Movie`."""
    if original.isupper() and len(original) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if original[:1].isupper() else word
