"""The words that may replace another one: tokens of the model's vocabulary that are whole words."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.attacks.text.attacked_text import is_word

_BEFORE = "a"  # a word must have one before it: some tokenizers treat the first word of a text otherwise
_CHUNK = 4096


@dataclass(frozen=True)
class Vocabulary:
    """Replacement words, each of them one token of the model.

    Attributes:
        ids: `(size,)` token ids.
        words: the `size` words as a reader sees them.
    """

    ids: NDArray[np.int64]
    words: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any, rows: int) -> Vocabulary:
        """The tokens that read as one alphabetic word and that this word becomes again within a sentence.

        Continuation pieces and special tokens fall out by what they do, not by what they are called: a
        piece that continues a word does not come back when its letters stand alone.

        Args:
            tokenizer: a fast tokenizer.
            rows: rows of the embedding table; ids beyond it are left out.
        """
        special = set(tokenizer.all_special_ids)
        ids = [i for i in range(min(len(tokenizer), rows)) if i not in special]
        decoded = tokenizer.backend_tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
        found = [
            (i, w) for i, w in zip(ids, map(str.strip, decoded), strict=True) if w.isalpha() and is_word(w)
        ]
        kept: list[tuple[int, str]] = []
        for start in range(0, len(found), _CHUNK):
            kept += _that_come_back(tokenizer, found[start : start + _CHUNK])
        return cls(np.array([i for i, _ in kept], dtype=np.int64), tuple(word for _, word in kept))

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places = defaultdict(list)
        for place, word in enumerate(self.words):
            places[word.casefold()].append(place)
        return dict(places)

    def same_word(self, word: str) -> list[int]:
        """Places of the entries that equal the word but for upper and lower case."""
        return self._places.get(word.casefold(), [])


def _that_come_back(tokenizer: Any, candidates: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The pairs (id, word) for which the tokenizer turns the word, after another one, into that one id."""
    before = tokenizer(_BEFORE, add_special_tokens=False)["input_ids"]
    batch = tokenizer([f"{_BEFORE} {word}" for _, word in candidates], add_special_tokens=False)
    return [
        pair for pair, ids in zip(candidates, batch["input_ids"], strict=True) if ids == [*before, pair[0]]
    ]
