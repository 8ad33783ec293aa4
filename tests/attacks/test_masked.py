"""Words from a masked language model: those that the library's own model expects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from offramp._core.errors import DataError
from offramp.attacks import AttackedText
from offramp.attacks.transformations.model_word import MaskedLanguageModel, MaskedWord
from offramp.attacks.victims.base import TokenizedText


@pytest.fixture(scope="module")
def language_model(masked_lm: str) -> MaskedLanguageModel:
    return MaskedLanguageModel(masked_lm)


def proposed(language_model: MaskedLanguageModel, text: AttackedText, words: Any, top_n: int = 100) -> Any:
    move = MaskedWord(language_model, most=5)
    return move.edits(TokenizedText(text, [], []), words, top_n, np.random.default_rng(0))


def logits(masked_lm: str, *segments: str, masked: tuple[int, int] | None = None) -> Any:
    """The library's own logits, in one segment after another; a span of tokens as one mask if wanted."""
    model, tokenizer = (
        AutoModelForMaskedLM.from_pretrained(masked_lm).eval(),
        AutoTokenizer.from_pretrained(masked_lm),
    )
    inputs = dict(tokenizer(*segments, return_tensors="pt"))
    if masked:
        kept = [i for i in range(inputs["input_ids"].shape[1]) if not masked[0] < i < masked[1]]
        inputs = {name: values[:, kept] for name, values in inputs.items()}
        inputs["input_ids"][0, masked[0]] = tokenizer.mask_token_id
    with torch.no_grad():
        return model(**inputs).logits[0], tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])


def likeliest(row: Any, vocabulary: Any, but: str) -> list[str]:
    order = np.argsort(-row.numpy()[vocabulary.ids], kind="stable")
    return [vocabulary.words[i] for i in order if vocabulary.words[i] != but][:5]


def test_words_are_those_the_library_expects(language_model: MaskedLanguageModel, masked_lm: str) -> None:
    text = AttackedText.of("the film is good", "the film is dull")
    rows, tokens = logits(masked_lm, "the film is good", "the film is dull")
    assert tokens[4] == "good"
    assert tokens[9] == "dull"
    good, dull = proposed(language_model, text, [3]), proposed(language_model, text, [7])
    assert [e.word for e in good] == likeliest(rows[4], language_model.vocabulary, "good")
    assert [e.word for e in dull] == likeliest(rows[9], language_model.vocabulary, "dull")
    assert proposed(language_model, text, [3, 7], top_n=4) == [good[0], dull[0], good[1], dull[1]]
    # After a change the text as it stands is read.
    rows, _ = logits(masked_lm, "the film is dull", "the film is dull")
    after = proposed(language_model, text.replace(3, "dull"), [1])
    assert [e.word for e in after] == likeliest(rows[2], language_model.vocabulary, "film")


def test_a_word_of_several_tokens_is_masked_as_one(
    language_model: MaskedLanguageModel, masked_lm: str
) -> None:
    tokenizer = language_model.tokenizer
    word = next(w for w in ("goodfilm", "filmgood", "dullgood") if len(tokenizer.tokenize(w)) > 1)
    size = len(tokenizer.tokenize(word))
    rows, tokens = logits(masked_lm, f"the {word} is good", masked=(2, 2 + size))
    assert tokens[2] == tokenizer.mask_token
    found = proposed(language_model, AttackedText.of(f"the {word} is good"), [1])
    assert [e.word for e in found] == likeliest(rows[2], language_model.vocabulary, word)


def test_case_and_truncation(language_model: MaskedLanguageModel) -> None:
    text = AttackedText.of("The film is good " + "very " * 600 + "dull")
    first = proposed(language_model, text, [0])
    assert first
    assert all(e.word[:1].isupper() for e in first)
    assert proposed(language_model, text, [604]) == []  # cut away


def test_models_that_cannot_be_used(tmp_path: Path, tiny_encoder: Path) -> None:
    with pytest.raises(
        DataError, match="no masked language model at .*: give a folder or a hub id as masked_lm"
    ):
        MaskedLanguageModel(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="has no head for masked words"):
        MaskedLanguageModel(str(tiny_encoder))
