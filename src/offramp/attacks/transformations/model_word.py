"""Replacement words that a model proposes: by the gradient of the loss, or by its expectation in a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import DataError
from offramp._core.library import hub, quiet
from offramp._core.paths import user_path
from offramp._core.text import clean_text
from offramp.attacks.text.attacked_text import AttackedText, word_tokens
from offramp.attacks.transformations.base import Edit, Transformation, WordByWord, cased_like
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import TokenizedText
from offramp.backbones import read_tokenizer
from offramp.model.loading import named_device


def first_order(tables: Sequence[Tensor], ids: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """First-order change of the loss when a token is replaced: `(E_v − E_w)·g`, summed over the tables.

    Args:
        tables: embedding matrices `(vocabulary, dim)`; a cascade has one for each member, and layer 0 has its own.
        ids: `(positions,)` tokens w as they are.
        gradients: gradients g of each table at the positions, `(positions, dim)`.

    Returns:
        `(positions, vocabulary)`, in units of the loss; the lowest estimate promises the largest fall.

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
        rows = min(table.num_embeddings for table in self.tables)
        matrices = [table.weight[:rows].float() for table in self.tables]
        scores = first_order(matrices, ids, [g[first].float() for g in tokenized.gradients])
        return scores[:, torch.as_tensor(self.vocabulary.ids, device=device)]


Inputs = dict[str, list[int]]
LONGEST = 512  # tokens to read if the tokenizer has no limit


class MaskedLanguageModel:
    """A masked language model from a folder or the hub, and its one-token words.

    Raises:
        DataError: no such model, a model without a trained head for masked words, or no fast tokenizer with a mask.
    """

    def __init__(self, name: str) -> None:
        folder = user_path(name, "masked_lm")
        name = str(folder) if folder.exists() else name
        try:
            with hub(), quiet():
                self.model, loading = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True)
                self.tokenizer = read_tokenizer(name)
        except Exception as error:  # each file has its own library and error types
            raise DataError(
                f"no masked language model at {name} ({first_sentence(error)}): "
                "give a folder or a hub id as masked_lm"
            ) from error
        if loading["missing_keys"]:
            raise DataError(f"{name} has no head for masked words: give another model as masked_lm")
        if not self.tokenizer.is_fast or self.tokenizer.mask_token_id is None:
            raise DataError(f"{name} has no fast tokenizer with a mask: give another model as masked_lm")
        self.model.eval().to(named_device("auto"))
        self.vocabulary = Vocabulary.of(self.tokenizer, self.model.config.vocab_size)
        self._last: tuple[AttackedText, Inputs, list[tuple[int, ...]], NDArray[np.float32]] | None = None

    def expects(self, text: AttackedText, position: int) -> NDArray[np.float32] | None:
        """Logits `(vocabulary,)` of the words at a position; None if truncation cut off that word.

        The model sees a word of one token, as in the BERT-Attack paper. A single mask replaces a word of several, so
        a single token can replace the word.
        """
        if self._last is None or self._last[0] != text:
            batch = self.tokenizer(
                *([clean_text(segment)] for segment in text.segments),
                truncation=True,
                max_length=min(self.tokenizer.model_max_length, LONGEST),
                return_offsets_mapping=True,
            )
            inputs = {name: batch[name][0] for name in self.tokenizer.model_input_names if name in batch}
            tokens = word_tokens(text, batch["offset_mapping"][0], batch.sequence_ids(0))
            self._last = text, inputs, tokens, self._logits(inputs)
        _, inputs, tokens, logits = self._last
        if not tokens[position]:
            return None
        first, last = tokens[position][0], tokens[position][-1]
        if first < last:
            shorter = {name: [*values[: first + 1], *values[last + 1 :]] for name, values in inputs.items()}
            shorter["input_ids"][first] = self.tokenizer.mask_token_id
            logits = self._logits(shorter)
        return logits[first]

    @torch.inference_mode()
    def _logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Logits `(tokens, vocabulary)`."""
        device = self.model.device
        batch = {name: torch.tensor([values], device=device) for name, values in inputs.items()}
        ids = torch.as_tensor(self.vocabulary.ids, device=device)
        return self.model(**batch).logits[0, :, ids].float().cpu().numpy()


load_masked_lm = lru_cache(maxsize=1)(MaskedLanguageModel)  # kept for the next recipe


@dataclass(frozen=True)
class MaskedWord(WordByWord):
    """At most `most` words that a masked language model expects at a word's position, in its case.

    The model reads the text in its present version.
    """

    language_model: MaskedLanguageModel = field(repr=False)
    most: int = 48

    def replacements(self, tokenized: TokenizedText, position: int, rng: Generator) -> list[str]:
        logits, vocabulary = (
            self.language_model.expects(tokenized.text, position),
            self.language_model.vocabulary,
        )
        if logits is None:
            return []
        word = tokenized.text.words[position]
        same = set(vocabulary.same_word(word))
        ranked = [i for i in np.argsort(-logits, kind="stable").tolist() if i not in same]
        return [cased_like(vocabulary.words[i], word) for i in ranked[: self.most]]
