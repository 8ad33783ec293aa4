"""Texts to token ids from `tokenizer.json` alone: the twin of `model.encoding` that needs no transformers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from offramp._core.errors import MissingExtraError, ModelError
from offramp._core.text import clean_text, read_texts
from offramp.engine.manifest import AGAIN, Manifest

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class FileEncoder:
    """Tokenises texts without padding, cut to the maximum length as the model's own encoder cuts them.

    Args:
        folder: an exported folder.
        manifest: what it says of itself.

    Raises:
        ModelError: no tokenizer there, or one that this version of `tokenizers` cannot read.
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
            raise ModelError(f"{path} is no tokenizer that can be read ({error}): {AGAIN}") from error
        if unknown := sorted(set(manifest.inputs) - set(FIELDS)):
            raise ModelError(
                f"{folder} asks for the inputs {', '.join(unknown)}, which no tokenizer gives: {AGAIN}"
            )
        self.inputs = manifest.inputs
        self.pad_values = dict(manifest.pad_values)
        self.max_length = manifest.max_length

    def __call__(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> list[dict[str, list[int]]]:
        """One dict a text: lists of ints under the model's input names.

        Raises:
            DataError: one string instead of a list, other things than strings, or another number of pairs.
        """
        first, second = read_texts(texts, pairs)
        cleaned = [clean_text(text) for text in first]
        other = None if second is None else [clean_text(text) for text in second]
        if len(cleaned) == 1:  # a text alone needs no threads
            encoded = [self.tokenizer.encode(cleaned[0], None if other is None else other[0])]
        else:
            encoded = self.tokenizer.encode_batch(
                cleaned if other is None else list(zip(cleaned, other, strict=True))
            )
        return [{name: getattr(encoding, FIELDS[name]) for name in self.inputs} for encoding in encoded]
