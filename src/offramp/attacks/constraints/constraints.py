"""Constraints of an attack: on words and characters before a text is tried, on answer and meaning after."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from offramp.attacks.options import Options, Preserve
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.lexicon import load_wordnet
from offramp.attacks.transformations.wordnet import WordNet
from offramp.attacks.victims.base import Answer, TokenizedText

if TYPE_CHECKING:
    from offramp.attacks.similarity.base import Judge

FEWEST = 3  # words that may change even in a short text
Label = int | float | None


def english_stop_words() -> frozenset[str]:
    """scikit-learn's list of English stop words, lower case."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def edit_distance(before: str, after: str) -> int:
    """Levenshtein distance: fewest characters inserted, deleted or replaced."""
    row = list(range(len(after) + 1))
    for i, old in enumerate(before, start=1):
        diagonal, row[0] = row[0], i
        for j, new in enumerate(after, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (old != new))
    return row[-1]


@dataclass(frozen=True)
class Constraints:
    """Which words may change, how many, and how far. Both segments of a pair count as one text.

    Attributes:
        max_changed_words: share of the words that may change, at most `max(fewest, ⌈share · words⌉)` of them; an int is
            their number.
        stop_words: words left untouched, compared in lower case.
        fewest: words that may always change, even if the share allows fewer.
        max_edits: most characters that may change in all words together (`edit_distance` per word);
            None for no limit.
        grammar: a WordNet in which a new word must share a part of speech with the old one; an unknown word may
            become any. None for no limit.
        preserve: what must not change: `nothing`, the `prediction` for the clean text, or the `label` if the
            prediction was right.
        judge: scores the similarity; None for no limit.
        min_similarity: least cosine similarity to the clean text.
    """

    max_changed_words: float | int = 0.1
    stop_words: frozenset[str] = field(default_factory=english_stop_words, repr=False)
    fewest: int = FEWEST
    max_edits: int | None = None
    grammar: WordNet | None = field(default=None, repr=False)
    preserve: Preserve = "nothing"
    judge: Judge | None = field(default=None, repr=False)
    min_similarity: float = 0.0

    def budget(self, text: AttackedText) -> int:
        """The number of words that may differ from the original."""
        if isinstance(self.max_changed_words, int):
            return self.max_changed_words
        # A float share of 0.1 must give 3 for 30 words, not 4, so the product is rounded first.
        return max(self.fewest, math.ceil(round(self.max_changed_words * text.num_words, 9)))

    def open(self, text: AttackedText) -> bool:
        """Whether one more word may change."""
        return text.num_changed < self.budget(text)

    def allowed(self, tokenized: TokenizedText) -> list[int]:
        """Words that may still change: unchanged, no stop word, and within the model's maximum length."""
        text = tokenized.text
        if not self.open(text):
            return []
        changed = set(text.changed)
        return [
            i
            for i, tokens in enumerate(tokenized.tokens)
            if tokens and i not in changed and text.original_word(i).lower() not in self.stop_words
        ]

    @property
    def selective(self) -> bool:
        """Whether `permits` ever refuses."""
        return self.max_edits is not None or self.grammar is not None

    def permits(self, text: AttackedText) -> bool:
        """Whether a text may be tried: characters and parts of speech."""
        pairs = [(text.original_word(i), new) for i, new in text.changes]
        if self.max_edits is not None and sum(edit_distance(*pair) for pair in pairs) > self.max_edits:
            return False
        return self.grammar is None or all(self.grammar.interchangeable(*pair) for pair in pairs)

    @property
    def accepts_any_answer(self) -> bool:
        """Whether no tried text is refused, whatever its answer and its meaning."""
        return self.preserve == "nothing" and (self.judge is None or self.min_similarity <= 0)

    def holds(self, before: Answer, label: Label) -> bool:
        """Whether the attack must keep the clean text's prediction in `before`."""
        correct = before.prediction == label
        return self.preserve == "prediction" or (self.preserve == "label" and correct)

    def accepts(
        self, clean: AttackedText, before: Answer, text: AttackedText, after: Answer, label: Label
    ) -> bool:
        """Whether a tried text is accepted, by its answer `after` and its meaning.

        The answer to the clean text is `before`; `label` is the true one, or None.
        """
        if self.holds(before, label) and after.prediction != before.prediction:
            return False
        if self.judge is None or self.min_similarity <= 0 or text.segments == clean.segments:
            return True
        (similarity,) = self.judge.similarities([(clean.segments, text.segments)])
        return bool(similarity >= self.min_similarity)


def constraints_of(options: Options, fewest: int = FEWEST) -> Constraints:
    """The constraints of some options, without a judge."""
    return Constraints(
        options.max_changed_words,
        fewest=fewest,
        max_edits=options.max_edits,
        grammar=load_wordnet(options.lexicon) if options.grammar else None,
        preserve=options.preserve,
    )
