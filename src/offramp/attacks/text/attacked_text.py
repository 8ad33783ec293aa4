"""A text under attack: words with character spans over one or two segments, some of them replaced. No torch.

A *word* is a maximal run of letters and digits of any script (what `str.isalnum` accepts, with combining
accents). Single apostrophes and hyphens may join two of them: `don't`,
`state-of-the-art`, `naïve`, `映画`. Everything else (spaces, punctuation, emoji, underscores, control
characters) is between words and never changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from offramp._core.errors import DataError

_RUN = r"[^\W_](?:[^\W_]|[\u0300-\u036f])*"
WORD = re.compile(rf"{_RUN}(?:['’\-\u2010\u2011]{_RUN})*")


class Span(NamedTuple):
    """The position of a word: characters `start` to `end` (excluded) of segment 0 (text) or 1 (text_pair)."""

    segment: int
    start: int
    end: int


def is_word(string: str) -> bool:
    """Whether the string is exactly one word."""
    return WORD.fullmatch(string) is not None


@dataclass(frozen=True)
class AttackedText:
    """An original text, or pair of texts, and its replaced words. Immutable and hashable.

    Make one with `AttackedText.of(text, text_pair)`. One word replaces one word, so the number of words never changes,
    and every character outside the replaced words stays. Words may be put in front of the text; they do not count as
    words of the text, and nothing replaces them.

    Attributes:
        original: `(text,)` or `(text, text_pair)` before any change.
        changes: pairs (word index, new word), sorted by index; only words that differ from the original.
        front: words put in front of the first segment.
    """

    original: tuple[str, ...]
    changes: tuple[tuple[int, str], ...] = ()
    front: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str, text_pair: str | None = None) -> AttackedText:
        """The unchanged text of an example; `text_pair` is None for a single segment."""
        return cls((text,) if text_pair is None else (text, text_pair))

    @cached_property
    def origin(self) -> tuple[Span, ...]:
        """Spans of the words in the original."""
        strings = enumerate(self.original)
        return tuple(Span(s, *m.span()) for s, string in strings for m in WORD.finditer(string))

    def _with(self, **changed: Any) -> AttackedText:
        """Another version of the same original, with the same spans of its words."""
        version = replace(self, **changed)
        version.__dict__["origin"] = self.origin
        return version

    def replace(self, index: int, word: str) -> AttackedText:
        """The same text with word `index` replaced.

        Args:
            index: index of the word, counted from 0 through both segments.
            word: the new word; the original word undoes an earlier change.

        Raises:
            DataError: no such word, or the replacement is not exactly one word.
        """
        last = self.num_words - 1
        if not 0 <= index <= last:
            raise DataError(f"the text has words 0..{last}, got index {index}: give an index in this range")
        if not is_word(word):
            raise DataError(
                f"a word is replaced by exactly one word, got {word!r}: give letters or digits only"
            )
        changes = dict(self.changes)
        changes.pop(index, None)
        if word != self.original_word(index):
            changes[index] = word
        return self._with(changes=tuple(sorted(changes.items())))

    def in_front(self, words: Sequence[str]) -> AttackedText:
        """The same text with other words in front of it; `DataError` for anything that is not exactly one word."""
        for word in words:
            if not is_word(word):
                raise DataError(f"expected single words to put in front of a text, got {word!r}: split them")
        return self._with(front=tuple(words))

    def without(self, index: int) -> AttackedText:
        """A new text without word `index`, which does not know its original."""
        segment, start, end = self.spans[index]
        left = list(self.segments)
        left[segment] = left[segment][:start] + left[segment][end:]
        return AttackedText.of(*left)

    @property
    def num_changed(self) -> int:
        """Words replaced, and words in front."""
        return len(self.changes) + len(self.front)

    @property
    def num_words(self) -> int:
        return len(self.origin)

    @property
    def changed(self) -> tuple[int, ...]:
        """Indices of the words that differ from the original, increasing."""
        return tuple(index for index, _ in self.changes)

    @property
    def text(self) -> str:
        """The first segment as it is now."""
        return self.segments[0]

    @property
    def text_pair(self) -> str | None:
        """The second segment as it is now, or None."""
        return self.segments[1] if len(self.original) > 1 else None

    def original_word(self, index: int) -> str:
        """Word `index` before any change."""
        segment, start, end = self.origin[index]
        return self.original[segment][start:end]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words as they are now."""
        changes = dict(self.changes)
        return tuple(changes.get(i) or self.original_word(i) for i in range(self.num_words))

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """`(text,)` or `(text, text_pair)` as it is now."""
        pieces: list[list[str]] = [[] for _ in self.original]
        pieces[0] += [f"{word} " for word in self.front]
        done = [0] * len(self.original)
        for index, word in self.changes:
            segment, start, end = self.origin[index]
            pieces[segment] += [self.original[segment][done[segment] : start], word]
            done[segment] = end
        rests = (string[end:] for string, end in zip(self.original, done, strict=True))
        return tuple("".join([*piece, rest]) for piece, rest in zip(pieces, rests, strict=True))

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """Spans of the words in the text as it is now."""
        changes, spans = dict(self.changes), []
        for segment, words in groupby(enumerate(self.origin), key=lambda item: item[1].segment):
            shift = 0 if segment else sum(len(word) + 1 for word in self.front)
            for index, (_, start, end) in words:
                length = len(changes[index]) if index in changes else end - start
                spans.append(Span(segment, start + shift, start + shift + length))
                shift += length - (end - start)
        return tuple(spans)


def word_tokens(
    text: AttackedText, offsets: Sequence[tuple[int, int]], sequence_ids: Sequence[int | None]
) -> list[tuple[int, ...]]:
    """Find the tokens of each word.

    Args:
        offsets: `(tokens,)` first and last (excluded) character of each token within its segment.
        sequence_ids: `(tokens,)` segment of each token, None for special tokens.

    Returns:
        One tuple of token positions per word, in order; empty if truncation cut the word away.
    """
    owned: list[list[int]] = [[] for _ in text.spans]
    by_segment: list[list[int]] = [[] for _ in text.original]
    for index, span in enumerate(text.spans):
        by_segment[span.segment].append(index)
    at = [0] * len(text.original)  # both sides are sorted: one walk through each segment
    for token, ((start, end), segment) in enumerate(zip(offsets, sequence_ids, strict=True)):
        if segment is None or start == end:
            continue
        words = by_segment[segment]
        while at[segment] < len(words) and text.spans[words[at[segment]]].end <= start:
            at[segment] += 1
        for index in words[at[segment] :]:
            if text.spans[index].start >= end:
                break
            owned[index].append(token)
    return [tuple(tokens) for tokens in owned]
