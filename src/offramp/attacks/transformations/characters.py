"""Changes of one character in a word: neighbour swap, insertion, deletion, homoglyph. No torch."""

from __future__ import annotations

import string
import unicodedata
from functools import lru_cache

from offramp._core.errors import MissingExtraError
from offramp.attacks.text.attacked_text import is_word

LONGEST = 300  # there are some thirty changes a character, each as long as the word


def character_changes(word: str) -> dict[str, list[str]]:
    """All words that are one character away from a word, by kind of change.

    Args:
        word: the word.

    Returns:
        `swap` (two neighbours exchanged), `insertion` (a lower-case ASCII letter anywhere), `deletion` and
        `homoglyph` (a look-alike character); each change once, none equal to the word, all of them words.
        None of a run of more than 300 letters, which is no word.
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

    Fullwidth and mathematical letters are folded by many tokenizers, so the model would see no change.
    """
    try:
        from confusable_homoglyphs import confusables
    except ImportError as error:
        raise MissingExtraError("confusable-homoglyphs", "torch") from error
    entries = confusables.is_confusable(character, greedy=True) or [{"homoglyphs": []}]
    twins = [entry["c"] for entry in entries[0]["homoglyphs"]]
    return tuple(c for c in twins if c != character and c.isalpha() and unicodedata.normalize("NFKC", c) == c)
