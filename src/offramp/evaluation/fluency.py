"""Loss of fluency under a bigram model of the task's own training texts, without any download.

Interpolated Kneser–Ney over lower-case words and punctuation, with a uniform share for unseen words. It compares a
text with its original. It does not judge grammar, and its values are not comparable across data sets.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

DISCOUNT = 0.75
TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")
START, END = "<s>", "</s>"


class Bigram:
    """A bigram model of some texts.

    Args:
        texts: the training texts.

    Source: Kneser and Ney 1995, interpolated as in Chen and Goodman 1999, with their discount of 0.75.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        pairs: Counter[tuple[str, str]] = Counter()
        for text in texts:
            words = tokens(text)
            pairs.update(zip([START, *words], [*words, END], strict=True))
        self.pairs = pairs
        self.first, self.followers, self.contexts = Counter[str](), Counter[str](), Counter[str]()
        for (before, word), count in pairs.items():
            self.first[before] += count
            self.followers[before] += 1
            self.contexts[word] += 1

    def probability(self, before: str, word: str) -> float:
        """Probability of a word after another word; positive for every word."""
        alone = self._alone(word)
        seen = self.first[before]
        if not seen:
            return alone
        rest = DISCOUNT * self.followers[before] / seen
        return max(self.pairs[before, word] - DISCOUNT, 0.0) / seen + rest * alone

    def _alone(self, word: str) -> float:
        """Share of the contexts that a word follows, with a uniform share for all words and the unknown word."""
        types, words = len(self.pairs), len(self.contexts)
        if not types:
            return 1.0
        rest = DISCOUNT * words / types
        return max(self.contexts[word] - DISCOUNT, 0.0) / types + rest / (words + 1)

    def score(self, text: str) -> float:
        """Mean log-probability per token in nats, the end token included."""
        words = tokens(text)
        pairs = list(zip([START, *words], [*words, END], strict=True))
        return sum(math.log(self.probability(*pair)) for pair in pairs) / len(pairs)


def tokens(text: str) -> list[str]:
    """Words and punctuation marks in lower case."""
    return [match.lower() for match in TOKEN.findall(text)]


def fluency_change(
    model: Bigram, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Change of log-probability of each example `(examples,)`, in nats per token; negative is less likely.

    Args:
        model: of the task's training texts.
        before, after: the segments of each example.
    """

    def scored(segments: Sequence[str]) -> float:
        return float(np.mean([model.score(text) for text in segments]))

    return np.array([scored(new) - scored(old) for old, new in zip(before, after, strict=True)])
