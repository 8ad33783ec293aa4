"""How much less likely a text became: a bigram model of the task's own training texts. No download, no hub.

Interpolated Kneser–Ney over lower-case words and punctuation, with a uniform share for words never seen. It says what a
change costs against the original; it is no judge of grammar, and no measure across data sets.
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
        texts: what is usual.

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
        """Of a word after another one; positive for every word."""
        alone = self._alone(word)
        seen = self.first[before]
        if not seen:
            return alone
        rest = DISCOUNT * self.followers[before] / seen
        return max(self.pairs[before, word] - DISCOUNT, 0.0) / seen + rest * alone

    def _alone(self, word: str) -> float:
        """In how many contexts a word stands, with a uniform share for all words and one more, the unknown."""
        types, known = len(self.pairs), len(self.contexts)
        if not types:
            return 1.0
        rest = DISCOUNT * known / types
        return max(self.contexts[word] - DISCOUNT, 0.0) / types + rest / (known + 1)

    def score(self, text: str) -> float:
        """Mean log-probability a token, the end included, in nats."""
        words = tokens(text)
        pairs = list(zip([START, *words], [*words, END], strict=True))
        return sum(math.log(self.probability(*pair)) for pair in pairs) / len(pairs)


def tokens(text: str) -> list[str]:
    """Words and punctuation marks in lower case."""
    return [found.lower() for found in TOKEN.findall(text)]


def fluency_change(
    model: Bigram, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """How much less likely each example became `(examples,)`: nats a token, negative for less.

    Args:
        model: of the task's training texts.
        before, after: the segments of each example.
    """

    def scored(segments: Sequence[str]) -> float:
        return float(np.mean([model.score(text) for text in segments]))

    return np.array([scored(new) - scored(old) for old, new in zip(before, after, strict=True)])
