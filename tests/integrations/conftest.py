"""Fixtures of the attacks' tests."""

from tests.attacks.conftest import (
    bpe_tokenizer,
    encoders,
    lexicon,
    make_model,
    pairs,
    policy_for,
    sentences,
    unigram_tokenizer,
    victim,
)

__all__ = [
    "bpe_tokenizer",
    "encoders",
    "lexicon",
    "make_model",
    "pairs",
    "policy_for",
    "sentences",
    "unigram_tokenizer",
    "victim",
]
