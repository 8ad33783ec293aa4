"""Loss of fluency under a bigram model of the task's own training texts, without any download.

Interpolated Kneser–Ney over lower-case words and punctuation, with a uniform share for unseen words. It compares a
text with its original. It does not judge grammar, and its values are not comparable across data sets.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

DISCOUNT = 0.75
TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")
START, END = "<s>", "</s>"


class Bigram:
    """A bigram model of training texts.

    Source: Kneser and Ney 1995, interpolated as in Chen and Goodman 1999, with their discount of 0.75.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.pairs = Counter(pair for text in texts for pair in token_pairs(text))
        self.first, self.followers, self.contexts = Counter[str](), Counter[str](), Counter[str]()
        for (before, word), count in self.pairs.items():
            self.first[before] += count
            self.followers[before] += 1
            self.contexts[word] += 1

    def probability(self, before: str, word: str) -> float:
        """Probability of a word after another word; positive for every word."""
        types, words, seen = len(self.pairs), len(self.contexts), self.first[before]
        if not types:
            return 1.0
        # The share of the contexts that the word follows, with a uniform share for all words and the unknown word.
        rest = DISCOUNT * words / types
        alone = max(self.contexts[word] - DISCOUNT, 0.0) / types + rest / (words + 1)
        if not seen:
            return alone
        rest = DISCOUNT * self.followers[before] / seen
        return max(self.pairs[before, word] - DISCOUNT, 0.0) / seen + rest * alone

    def score(self, text: str) -> float:
        """Mean log-probability per token in nats, the end token included."""
        pairs = token_pairs(text)
        return sum(math.log(self.probability(*pair)) for pair in pairs) / len(pairs)


def token_pairs(text: str) -> list[tuple[str, str]]:
    """Neighbouring words and punctuation marks, in lower case, from the start token to the end token."""
    words = [match.lower() for match in TOKEN.findall(text)]
    return list(pairwise([START, *words, END]))


def fluency_change(
    model: Bigram, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Change of log-probability of each example `(examples,)`, in nats per token; negative is less likely.

    `before` and `after` hold the segments of each example.
    """
    scores = [[np.mean([model.score(text) for text in texts]) for texts in side] for side in (before, after)]
    return np.subtract(scores[1], scores[0])
