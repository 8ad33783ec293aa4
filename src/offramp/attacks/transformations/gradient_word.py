"""Replacement words by the gradient of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from numpy.random import Generator
from torch import Tensor, nn

from offramp.attacks.transformations.base import Edit, Transformation
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.answers import TokenizedText


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

    A word of several tokens is replaced as a whole. The new word is one token, which takes the position of the first
    token. The estimate ignores the word's other tokens; the query that follows does not.
    """

    needs_gradient: ClassVar[bool] = True
    vocabulary: Vocabulary = field(repr=False)
    tables: Sequence[nn.Embedding] = field(repr=False)  # read at every call: training changes them

    @torch.no_grad()
    def edits(self, tokenized: TokenizedText, words: Sequence[int], top_n: int, rng: Generator) -> list[Edit]:
        """The lowest estimates over all given words and the whole vocabulary."""
        if not words or not self.vocabulary.words:
            return []
        scores = self.estimates(tokenized, words)
        for row, word in enumerate(words):
            scores[row, self.vocabulary.same_word(tokenized.text.words[word])] = torch.inf
        values, flat = scores.flatten().topk(min(top_n, scores.numel()), largest=False)
        size = len(self.vocabulary.words)
        chosen = [i for v, i in zip(values.tolist(), flat.tolist(), strict=True) if v < torch.inf]
        return [Edit(words[i // size], self.vocabulary.words[i % size]) for i in chosen]

    def estimates(self, tokenized: TokenizedText, words: Sequence[int]) -> Tensor:
        """First-order estimates `(words, vocabulary words)` at the first token of each word; see `first_order`."""
        device = self.tables[0].weight.device
        first = torch.tensor([tokenized.tokens[word][0] for word in words], device=device)
        ids = torch.tensor(tokenized.ids, device=device)[first]
        matrices = [table.weight.float() for table in self.tables]
        scores = first_order(matrices, ids, [g[first].float() for g in tokenized.gradients])
        return scores[:, torch.as_tensor(self.vocabulary.ids, device=device)]
