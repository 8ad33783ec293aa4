"""Changes of one character in a word: neighbour swap, insertion, deletion, homoglyph. No torch."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from numpy.random import Generator

from offramp._core.errors import MissingExtraError
from offramp.attacks.text.attacked_text import is_word
from offramp.attacks.transformations.base import Edit, Transformation, WordByWord, take_turns
from offramp.attacks.victims.base import TokenizedText

LONGEST = 300  # a word has about thirty changes per character, each as long as the word


@dataclass(frozen=True)
class CharacterChange(Transformation):
    """One neighbour swap, insertion, deletion or homoglyph in one word.

    A word has several hundred changes, most of them insertions. Each word's changes of each kind are shuffled, then
    words and kinds take turns until there are `top_n`.
    """

    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """The first change of each kind in each word in turn, then the second ones, and so on."""
        columns = []
        for index in words:
            for changes in character_changes(tokenized.text.words[index]).values():
                columns.append([Edit(index, changes[i]) for i in rng.permutation(len(changes))])
        return take_turns(columns, top_n)


@dataclass(frozen=True)
class Bug(WordByWord):
    """One drawn change of each kind inside a word, without its first and last character: TextBugger's bugs."""

    def replacements(self, tokenized: TokenizedText, position: int, rng: Generator) -> list[str]:
        word, drawn = tokenized.text.words[position], []
        for changes in character_changes(word).values():
            inner = [c for c in changes if c[0] == word[0] and c[-1] == word[-1] and len(c) > 2]
            drawn += [inner[int(rng.integers(len(inner)))]] if inner else []
        return drawn


def character_changes(word: str) -> dict[str, list[str]]:
    """All words that are one character away from a word, by kind of change.

    Returns:
        `swap` (two neighbours exchanged), `insertion` (a lower-case ASCII letter anywhere), `deletion` and
        `homoglyph` (a look-alike character). Each change occurs once, differs from the word, and is a word. A run of
        more than 300 letters has none.
    """
    cuts = [(word[:i], word[i:]) for i in range(len(word) + 1)] if len(word) <= LONGEST else []
    kinds = {
        "swap": [a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1],
        "insertion": [a + letter + b for a, b in cuts for letter in string.ascii_lowercase],
        "deletion": [a + b[1:] for a, b in cuts if b],
        "homoglyph": [a + twin + b[1:] for a, b in cuts if b for twin in homoglyphs(b[0])],
    }
    return {
        kind: list(dict.fromkeys(w for w in words if w != word and is_word(w)))
        for kind, words in kinds.items()
    }


@lru_cache(maxsize=4096)
def homoglyphs(character: str) -> tuple[str, ...]:
    """Letters that look like this one: Unicode's confusables, without those that NFKC folds.

    Many tokenizers fold fullwidth and mathematical letters, so the model would see no change.
    """
    try:
        from confusable_homoglyphs import confusables
    except ImportError as error:
        raise MissingExtraError("confusable-homoglyphs", "torch") from error
    entries = confusables.is_confusable(character, greedy=True) or [{"homoglyphs": []}]
    twins = [entry["c"] for entry in entries[0]["homoglyphs"]]
    return tuple(c for c in twins if c != character and c.isalpha() and unicodedata.normalize("NFKC", c) == c)
