"""Recognise the tokenizer that a model was made with: another one gives the right shapes and wrong answers."""

from __future__ import annotations

import hashlib
from typing import Any

from offramp._core.errors import ModelError
from offramp.model.config import MultiExitConfig

# Capitals, accents, numbers, punctuation, other scripts and spaces: where tokenizers differ.
PROBES = (
    "The Quick brown fox didn't pay $12.50!",
    "naïve Ångström",
    "漢字 かな 🎬",
    " two  spaces\tand\nlines ",
)


def tokenizer_check(tokenizer: Any) -> str:
    """A hash of the token ids of a few texts, 16 hexadecimal digits; it does not depend on lengths or padding."""
    ids = [tokenizer(text, truncation=False)["input_ids"] for text in PROBES]
    return hashlib.sha256(repr([list(map(int, row)) for row in ids]).encode()).hexdigest()[:16]


def refuse_other_tokenizer(tokenizer: Any, config: MultiExitConfig) -> None:
    """Raise `ModelError` if a tokenizer is not the one that the model of a config was made with."""
    words, rows = len(tokenizer), config.backbone.vocab_size
    if words > rows:
        raise ModelError(
            f"the tokenizer has {words} tokens but the model only {rows}: give the model its own tokenizer"
        )
    if config.tokenizer_check not in ("", tokenizer_check(tokenizer)):
        raise ModelError(
            "the tokenizer gives other token ids than the one that the model was made with: give the model its own "
            "tokenizer (model.tokenizer, or its files in the model's folder)"
        )
