"""Changes that a reader may pass over: synonyms, misspellings, and small bugs inside a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from offramp.attacks.transformations.base import Edit, Transformation
from offramp.attacks.transformations.characters import character_changes
from offramp.attacks.transformations.lexicon import Synonyms
from offramp.attacks.victims.answers import TokenizedText


def cased_like(word: str, model: str) -> str:
    """A word in upper or lower case as the model word is: `Film` for `film` and `Movie`."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


@dataclass(frozen=True)
class SynonymWord(Transformation):
    """Synonyms of a word, the nearest first, in its case.

    Attributes:
        synonyms: where they come from.
        most: most synonyms a word.
        min_cosine: least similarity of the word vectors.
    """

    synonyms: Synonyms = field(repr=False)
    most: int = 50
    min_cosine: float = 0.5

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """Each word's nearest synonym in turn, then the second ones, and so on."""
        columns = []
        for place in words:
            word = look.text.words[place]
            near = [other for other, cosine in self.synonyms.neighbours(word) if cosine >= self.min_cosine]
            columns.append([Edit(place, cased_like(other, word)) for other in near[: self.most]])
        return in_turn(columns, top_n)


@dataclass(frozen=True)
class Misspelling(Transformation):
    """Ways in which people misspell a word, in its case; drawn where there are too many."""

    misspellings: Mapping[str, Sequence[str]] = field(repr=False)

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """A misspelling of each word in turn, then another one, and so on."""
        columns = []
        for place in words:
            word = look.text.words[place]
            known = list(self.misspellings.get(word.lower(), ()))
            columns.append([Edit(place, cased_like(known[i], word)) for i in rng.permutation(len(known))])
        return in_turn(
            [[edit for edit in c if edit.word != look.text.words[edit.place]] for c in columns], top_n
        )


@dataclass(frozen=True)
class Bug(Transformation):
    """One change of each kind inside a word, first and last character untouched: TextBugger's bugs."""

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """For each word one drawn swap, insertion, deletion and homoglyph; none for short words."""
        columns = []
        for place in words:
            word = look.text.words[place]
            drawn = []
            for changes in character_changes(word).values():
                inner = [c for c in changes if c[0] == word[0] and c[-1] == word[-1] and len(c) > 2]
                drawn += [Edit(place, inner[int(rng.integers(len(inner)))])] if inner else []
            columns.append(drawn)
        return in_turn(columns, top_n)


def in_turn(columns: Sequence[Sequence[Edit]], top_n: int) -> list[Edit]:
    """The first edit of each column, then the second ones, and so on; each once."""
    turns = zip_longest(*columns)
    return list(dict.fromkeys(edit for turn in turns for edit in turn if edit is not None))[:top_n]
