"""How a word is changed: into another word of the vocabulary, or by one character."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from offramp.attacks.transformations.characters import character_changes
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.answers import TokenizedText


class Edit(NamedTuple):
    """Replace the word at `place` (its index) by `word`."""

    place: int
    word: str


class Transformation(ABC):
    """Proposes edits of a text."""

    needs_gradient: ClassVar[bool] = False

    @abstractmethod
    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """At most `top_n` edits of the words given, the most promising first."""


def first_order(tables: Sequence[Tensor], ids: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """First-order change of the loss when a token is replaced: `(E_v − E_w)·g`, summed over the tables.

    Args:
        tables: embedding matrices `(vocabulary, dim)`; a cascade has one for each member.
        ids: `(positions,)` tokens w as they are.
        gradients: for each table, gradients g at the positions `(positions, dim)`.

    Returns:
        `(positions, vocabulary)`, in units of the loss: the lower, the more the loss should fall.

    Source: Chen et al. 2023 (arXiv 2305.12228); HotFlip (Ebrahimi et al. 2018).
    """
    totals = [
        g @ table.T - (g * table[ids]).sum(-1, keepdim=True)
        for table, g in zip(tables, gradients, strict=True)
    ]
    return torch.stack(totals).sum(0)


@dataclass(frozen=True)
class GradientWord(Transformation):
    """The words that lower the loss most, by the first-order estimate at the first token of the old word.

    A word of several tokens is replaced as a whole. The new word is one token, so its first token is the
    one whose place it takes; what the word's other tokens gave is not in the estimate, only in the query
    that follows.
    """

    needs_gradient: ClassVar[bool] = True
    vocabulary: Vocabulary = field(repr=False)
    tables: Sequence[nn.Embedding] = field(repr=False)  # read at every call: a model in training moves

    @torch.no_grad()
    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """The lowest estimates over all words offered and the whole vocabulary."""
        if not words or not self.vocabulary.words:
            return []
        device = self.tables[0].weight.device
        first = torch.tensor([look.tokens[word][0] for word in words], device=device)
        ids = torch.tensor(look.ids, device=device)[first]
        matrices = [table.weight.float() for table in self.tables]
        scores = first_order(matrices, ids, [g[first].float() for g in look.gradients])
        scores = scores[:, torch.as_tensor(self.vocabulary.ids, device=device)]
        for row, word in enumerate(words):
            scores[row, self.vocabulary.same_word(look.text.words[word])] = torch.inf
        values, places = scores.flatten().topk(min(top_n, scores.numel()), largest=False)
        size = len(self.vocabulary.words)
        chosen = [p for v, p in zip(values.tolist(), places.tolist(), strict=True) if v < torch.inf]
        return [Edit(words[p // size], self.vocabulary.words[p % size]) for p in chosen]


@dataclass(frozen=True)
class RandomWord(Transformation):
    """Words and their replacements drawn uniformly."""

    vocabulary: Vocabulary = field(repr=False)

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """Different edits; somewhat fewer than `top_n` where few are possible."""
        if not words or not self.vocabulary.words:
            return []
        found: dict[Edit, None] = {}
        for _ in range(4 * top_n):
            word = words[int(rng.integers(len(words)))]
            place = int(rng.integers(len(self.vocabulary.words)))
            if place not in self.vocabulary.same_word(look.text.words[word]):
                found[Edit(word, self.vocabulary.words[place])] = None
            if len(found) == top_n:
                break
        return list(found)


@dataclass(frozen=True)
class CharacterChange(Transformation):
    """One neighbour swap, insertion, deletion or homoglyph in one word.

    There are some hundreds of changes a word, most of them insertions. Each word's changes of each kind are
    shuffled, then words and kinds take turns until there are `top_n`.
    """

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """The first change of each kind in each word in turn, then the second ones, and so on."""
        cells = []
        for word in words:
            for changes in character_changes(look.text.words[word]).values():
                cells.append([Edit(word, changes[i]) for i in rng.permutation(len(changes))])
        turns = zip_longest(*cells)
        edits = dict.fromkeys(edit for turn in turns for edit in turn if edit is not None)
        return list(edits)[:top_n]
