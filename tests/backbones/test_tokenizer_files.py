"""A tokenizer is cased as its files say, else as its vocabulary is; it has the encoder's special tokens."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from offramp._core.errors import ModelError
from offramp.backbones import load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LOWER = [*SPECIAL, "the", "film", "good", "##s", "café"]
CASED = [*LOWER, "The", "Film", "Good"]
TEXT = "The Film good"


def write(folder: Path, vocabulary: list[str], stated: dict[str, Any] | None = None) -> Path:
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    if stated is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


def pieces(folder: Path, size: int = len(CASED), **config: Any) -> list[str]:
    tokens: list[str] = load_tokenizer(folder, BertConfig(vocab_size=size, **config)).tokenize(TEXT)
    return tokens


@pytest.mark.parametrize(
    ("vocabulary", "stated", "expected"),
    [
        (CASED, None, ["The", "Film", "good"]),
        (CASED, {}, ["The", "Film", "good"]),
        (CASED, {"tokenizer_class": "BertTokenizer", "model_max_length": 64}, ["The", "Film", "good"]),
        (CASED, {"do_lower_case": False}, ["The", "Film", "good"]),
        (LOWER, None, ["the", "film", "good"]),
        (LOWER, {"do_lower_case": True}, ["the", "film", "good"]),
        ([*LOWER, *(f"w{i}" for i in range(200)), "Stray"], None, ["the", "film", "good"]),
    ],
)
def test_the_vocabulary_decides_what_no_file_says(
    vocabulary: list[str], stated: dict[str, Any] | None, expected: list[str], tmp_path: Path
) -> None:
    folder = write(tmp_path, vocabulary, stated)
    assert pieces(folder, len(vocabulary)) == expected
    saved = load_tokenizer(folder, BertConfig(vocab_size=len(vocabulary)))
    saved.save_pretrained(tmp_path / "again")
    assert pieces(tmp_path / "again", len(vocabulary)) == expected


@pytest.mark.parametrize(
    ("lower", "expected"), [(False, ["The", "Film", "good"]), (True, ["the", "film", "good"])]
)
def test_tokenizer_json_alone_is_read_as_it_says(lower: bool, expected: list[str], tmp_path: Path) -> None:
    write(tmp_path, CASED, {"do_lower_case": lower})
    load_tokenizer(tmp_path, BertConfig(vocab_size=len(CASED))).save_pretrained(tmp_path / "alone")
    (tmp_path / "alone" / "tokenizer_config.json").unlink()
    assert pieces(tmp_path / "alone") == expected


@pytest.mark.parametrize(
    ("vocabulary", "lower", "message"),
    [(CASED, True, "its vocabulary has words with capitals"), (LOWER, False, "keeps capitals, as its tok")],
)
def test_a_statement_against_the_vocabulary_is_followed_and_reported(
    vocabulary: list[str], lower: bool, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="offramp"):
        cased = pieces(write(tmp_path, vocabulary, {"do_lower_case": lower}))[0] != "the"
    assert cased == (not lower)
    assert message in caplog.text


def test_special_tokens_that_the_encoder_never_learned_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ["the", "film", "good", "[UNK]", "[CLS]", "[SEP]"])
    with pytest.raises(ModelError, match=r"lacks the special tokens \[PAD\], \[MASK\]: copy the encoder's"):
        pieces(tmp_path, 64)


def test_a_padding_token_comes_from_the_config(tmp_path: Path) -> None:
    write(tmp_path, CASED)
    tokenizer = load_tokenizer(tmp_path, BertConfig(vocab_size=len(CASED)))
    folder = tmp_path / "bare"
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert load_tokenizer(folder, BertConfig(vocab_size=len(CASED))).pad_token == "[PAD]"
    with pytest.raises(ModelError, match="has no padding token: name one as pad_token"):
        pieces(folder, pad_token_id=None)
