"""Changes that a reader may overlook: synonyms, misspellings, and small bugs inside a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from numpy.random import Generator

from offramp.attacks.transformations.base import Edit, Transformation, cased_like, take_turns
from offramp.attacks.transformations.characters import character_changes
from offramp.attacks.transformations.lexicon import Synonyms
from offramp.attacks.victims.answers import TokenizedText


@dataclass(frozen=True)
class SynonymWord(Transformation):
    """Synonyms of a word, the nearest first, in its case.

    Attributes:
        synonyms: their source.
        most: most synonyms per word.
        min_cosine: least similarity of the word vectors.
    """

    synonyms: Synonyms = field(repr=False)
    most: int = 50
    min_cosine: float = 0.5

    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """Each word's nearest synonym in turn, then the second ones, and so on."""
        columns = []
        for index in words:
            word = tokenized.text.words[index]
            near = [other for other, cosine in self.synonyms.neighbours(word) if cosine >= self.min_cosine]
            columns.append([Edit(index, cased_like(other, word)) for other in near[: self.most]])
        return take_turns(columns, top_n)


@dataclass(frozen=True)
class Misspelling(Transformation):
    """Common misspellings of a word, in its case; drawn if there are too many."""

    misspellings: Mapping[str, Sequence[str]] = field(repr=False)

    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """A misspelling of each word in turn, then another one, and so on."""
        columns = []
        for index in words:
            word = tokenized.text.words[index]
            options = self.misspellings.get(word.lower(), ())
            drawn = [cased_like(options[i], word) for i in rng.permutation(len(options))]
            columns.append([Edit(index, other) for other in drawn if other != word])
        return take_turns(columns, top_n)


@dataclass(frozen=True)
class Bug(Transformation):
    """One change of each kind inside a word, without its first and last character: TextBugger's bugs."""

    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """For each word one drawn swap, insertion, deletion and homoglyph; none for short words."""
        columns = []
        for index in words:
            word = tokenized.text.words[index]
            drawn = []
            for changes in character_changes(word).values():
                inner = [c for c in changes if c[0] == word[0] and c[-1] == word[-1] and len(c) > 2]
                drawn += [Edit(index, inner[int(rng.integers(len(inner)))])] if inner else []
            columns.append(drawn)
        return take_turns(columns, top_n)
