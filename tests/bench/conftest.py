"""Fixtures of several rooms."""

from tests.attacks.conftest import (
    bpe_tokenizer,
    encoders,
    make_model,
    policy_for,
    sentences,
    unigram_tokenizer,
)
from tests.exporting.conftest import exports, tiny_models

__all__ = [
    "bpe_tokenizer",
    "encoders",
    "exports",
    "make_model",
    "policy_for",
    "sentences",
    "tiny_models",
    "unigram_tokenizer",
]
