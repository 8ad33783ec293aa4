"""The words that may replace another one: tokens of the model's vocabulary that are whole words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from offramp.attacks.text.attacked_text import is_word
from offramp.attacks.transformations.base import Edit, Transformation
from offramp.attacks.victims.base import TokenizedText
from offramp.attacks.victims.memory import LastResults

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

_BEFORE = "a"  # the word before: some tokenizers treat the first word of a text differently
_CHUNK = 4096


@dataclass(frozen=True)
class Vocabulary:
    """Replacement words as a reader sees them. Each is one token of the model, with its id in `ids`."""

    ids: NDArray[np.int64]
    words: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any, rows: int) -> Vocabulary:
        """The tokens that read as one alphabetic word, which becomes the same token within a sentence.

        Continuation pieces and special tokens are excluded by their behaviour, not by their names: the letters of a
        continuation piece alone become another token. Ids beyond the `rows` of the embedding table
        are left out. The tokenizer must be a fast one.
        """
        special = set(tokenizer.all_special_ids)
        ids = [i for i in range(min(len(tokenizer), rows)) if i not in special]
        decoded = tokenizer.backend_tokenizer.decode_batch([[i] for i in ids], skip_special_tokens=False)
        words = zip(ids, map(str.strip, decoded), strict=True)
        candidates = [(i, word) for i, word in words if word.isalpha() and is_word(word)]
        before = tokenizer(_BEFORE, add_special_tokens=False)["input_ids"]
        chosen: list[tuple[int, str]] = []
        for start in range(0, len(candidates), _CHUNK):
            chunk = candidates[start : start + _CHUNK]
            batch = tokenizer([f"{_BEFORE} {word}" for _, word in chunk], add_special_tokens=False)
            again = zip(chunk, batch["input_ids"], strict=True)
            chosen += [pair for pair, tokens in again if tokens == [*before, pair[0]]]
        return cls(np.array([i for i, _ in chosen], dtype=np.int64), tuple(word for _, word in chosen))

    @classmethod
    def of_model(cls, model: SegmentedModel) -> Vocabulary:
        """The vocabulary of a model, read once in a process; a cascade's has a row in every member's table."""
        tokenizer = model.tokenizer
        rows = min(table.num_embeddings for table in model.embedding_tables())
        content = tokenizer.backend_tokenizer.to_str()
        key = (content, tuple(tokenizer.all_special_ids), rows)
        return _vocabularies.get(key, lambda: cls.of(tokenizer, rows))

    @cached_property
    def _entries(self) -> dict[str, list[int]]:
        entries = defaultdict(list)
        for entry, word in enumerate(self.words):
            entries[word.casefold()].append(entry)
        return dict(entries)

    def same_word(self, word: str) -> list[int]:
        """Entries that equal the word except for upper and lower case."""
        return self._entries.get(word.casefold(), [])


_vocabularies: LastResults[Vocabulary] = LastResults()


@dataclass(frozen=True)
class RandomWord(Transformation):
    """Words and their replacements, drawn uniformly."""

    vocabulary: Vocabulary = field(repr=False)

    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """Different edits; somewhat fewer than `top_n` if few are possible."""
        if not words or not self.vocabulary.words:
            return []
        drawn: dict[Edit, None] = {}
        for _ in range(4 * top_n):
            word = words[int(rng.integers(len(words)))]
            entry = int(rng.integers(len(self.vocabulary.words)))
            if entry not in self.vocabulary.same_word(tokenized.text.words[word]):
                drawn[Edit(word, self.vocabulary.words[entry])] = None
            if len(drawn) == top_n:
                break
        return list(drawn)
