"""The tokenizer of an exported folder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from offramp._core.errors import MissingExtraError, ModelError
from offramp._core.long_pairs import Spans, shorten_pairs
from offramp._core.text import clean_text, read_texts
from offramp.engine.manifest import AGAIN, Manifest

# The field of a tokenizer's encoding for each input of a model.
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class FileEncoder:
    """The equal of `model.encoding.TextEncoder` for an exported `tokenizer.json`, without transformers.

    Raises:
        ModelError: no tokenizer, or a tokenizer that this version of `tokenizers` cannot read.
        MissingExtraError: without `tokenizers`.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError("tokenizers", "onnx") from error
        path = folder / manifest.tokenizer
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every kind of bad file
            raise ModelError(f"{path} cannot be read as a tokenizer ({error}): {AGAIN}") from error
        if unknown := sorted(set(manifest.inputs) - set(FIELDS)):
            raise ModelError(
                f"{folder} asks for the inputs {', '.join(unknown)}, which tokenizers do not return: {AGAIN}"
            )
        self.inputs = manifest.inputs
        self.pad_values = dict(manifest.pad_values)
        self.max_length = manifest.max_length

    def __call__(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> list[dict[str, list[int]]]:
        """See `Encoder`; `DataError` for anything but lists of strings, or a wrong number of pairs."""
        first, second = read_texts(texts, pairs)
        cleaned = [clean_text(text) for text in first]
        other = None if second is None else [clean_text(text) for text in second]
        if other is not None:
            left = (self.tokenizer.truncation or {}).get("direction") == "left"
            cleaned, other = shorten_pairs(cleaned, other, self.max_length, self._spans, left=left)
        if len(cleaned) == 1:  # a single text needs no threads
            encoded = [self.tokenizer.encode(cleaned[0], None if other is None else other[0])]
        else:
            encoded = self.tokenizer.encode_batch_fast(  # without offsets, which nothing here reads
                cleaned if other is None else list(zip(cleaned, other, strict=True))
            )
        return [{name: getattr(encoding, FIELDS[name]) for name in self.inputs} for encoding in encoded]

    def _spans(self, text: str) -> Spans:
        """The characters of each token of a text."""
        spans: Spans = self._whole.encode(text, add_special_tokens=False).offsets
        return spans

    @cached_property
    def _whole(self) -> Any:
        """The tokenizer without truncation."""
        whole = type(self.tokenizer).from_str(self.tokenizer.to_str())
        whole.no_truncation()
        return whole
