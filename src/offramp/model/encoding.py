"""Turn texts into token ids: truncation, pairs and odd characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from offramp._core.errors import DataError, ModelError
from offramp._core.long_pairs import Spans, shorten_pairs
from offramp._core.text import clean_text, read_texts
from offramp.model.base import INPUTS, SegmentedModel
from offramp.model.tokenizer_check import refuse_other_tokenizer

Encoding = dict[str, list[int]]


@dataclass(frozen=True)
class TextEncoder:
    """Tokenises texts without padding, cut to the model's maximum length.

    Args:
        tokenizer: a fast `transformers` tokenizer.
        max_length: longest input in tokens, special tokens included.
    """

    tokenizer: Any
    max_length: int

    @classmethod
    def of(cls, model: SegmentedModel) -> TextEncoder:
        """The encoder of a model; `ModelError` if it has no tokenizer, or another model's."""
        if model.tokenizer is None:
            raise ModelError("the model has no tokenizer: set model.tokenizer to the one of its backbone")
        refuse_other_tokenizer(model.tokenizer, model.config)
        return cls(model.tokenizer, model.max_length)

    def __call__(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Encoding]:
        """One dict for each text: lists of ints by the model's input names."""
        return self.encode(texts, pairs)[0]

    def encode(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> tuple[list[Encoding], int]:
        """The encodings, and the number of texts that were cut."""
        first, second = read_texts(texts, pairs)
        if not first:
            return [], 0
        first = [clean_text(t) for t in first]
        if second is not None:
            second = [clean_text(t) for t in second]
            left = self.tokenizer.truncation_side == "left"
            first, second = shorten_pairs(first, second, self.max_length, self._spans, left=left)
        batch = self.tokenizer(
            first,
            second,
            truncation=True,
            max_length=self.max_length,
        )
        names = [name for name in INPUTS if name in batch]
        encodings = [{name: batch[name][i] for name in names} for i in range(len(first))]
        return encodings, sum(bool(e.overflowing) for e in batch.encodings)

    def _spans(self, text: str) -> Spans:
        """The characters of each token of a text."""
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        spans: Spans = self.tokenizer(text, truncation=False, **options)["offset_mapping"]
        return spans

    def full_lengths(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[int]:
        """Tokens of each text before truncation, including special tokens."""
        second = None if pairs is None else list(map(clean_text, pairs))
        batch = self.tokenizer(list(map(clean_text, texts)), second, truncation=False, verbose=False)
        return [len(ids) for ids in batch["input_ids"]]

    def dataset(self, dataset: Any) -> tuple[list[Encoding], int]:
        """The encodings of a data set with columns `text` and, for pairs, `text_pair`; the number that were cut."""
        if "text" not in dataset.column_names:
            raise DataError(
                f"expected a column 'text', found {dataset.column_names}: load it with offramp.load_data"
            )
        pairs = list(dataset["text_pair"]) if "text_pair" in dataset.column_names else None
        return self.encode(list(dataset["text"]), pairs)

    @property
    def pad_values(self) -> dict[str, int]:
        """The padding value of each input."""
        return {
            "input_ids": self.tokenizer.pad_token_id or 0,
            "attention_mask": 0,
            "token_type_ids": getattr(self.tokenizer, "pad_token_type_id", 0),
        }
