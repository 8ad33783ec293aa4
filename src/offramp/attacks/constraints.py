"""What an attack may not do: touch stop words, change a word twice, change too many words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from offramp.attacks.account import Look
from offramp.attacks.text import AttackedText

FEWEST = 3  # words that may change however short the text is


def english_stop_words() -> frozenset[str]:
    """scikit-learn's list of English stop words, lower case."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


@dataclass(frozen=True)
class Constraints:
    """Which words may be changed, and how many. Both segments of a pair count as one text.

    Attributes:
        words: a share of the words of which at most `max(3, ⌈share · words⌉)` may change, or, as an int,
            their number.
        stop_words: words left untouched, compared in lower case.
    """

    words: float | int = 0.1
    stop_words: frozenset[str] = field(default_factory=english_stop_words, repr=False)

    def budget(self, text: AttackedText) -> int:
        """How many words of the text may differ from the original."""
        if isinstance(self.words, int):
            return self.words
        # A float share of 0.1 must give 3 for 30 words, not 4: the product is rounded to what was meant.
        return max(FEWEST, math.ceil(round(self.words * text.num_words, 9)))

    def open(self, text: AttackedText) -> bool:
        """Whether one more word may be changed."""
        return len(text.changes) < self.budget(text)

    def allowed(self, look: Look) -> list[int]:
        """Words that may still be changed: unchanged, no stop word, and within what the model reads."""
        text = look.text
        if not self.open(text):
            return []
        changed = set(text.changed)
        return [
            i
            for i, tokens in enumerate(look.tokens)
            if tokens and i not in changed and text.original_word(i).lower() not in self.stop_words
        ]
