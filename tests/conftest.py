"""Tiny real models: random weights, real tokenizers, the library's own classes."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may need a hub

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WORDS = tuple(
    """
    the a film movie plot is was very not good great funny warm bad dull slow boring of and it this acting story
    an truly quite rather never always cast script charm mess waste gem who what where when how many city person
    """.split()
)
POSITIVE, NEGATIVE = (
    ("good", "great", "funny", "warm", "charm", "gem"),
    ("bad", "dull", "slow", "boring", "mess", "waste"),
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A word-piece tokenizer whose words are `WORDS`, with characters as fall-back."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(97, 123)] + list("0123456789.,!?'")
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters,
        *(f"##{c}" for c in letters),
    ]
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """Folder of a four-layer BERT of width 32 with random weights, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny-bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(
            BertConfig(
                vocab_size=len(tiny_tokenizer),
                hidden_size=32,
                num_hidden_layers=4,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
            )
        )
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data() -> Any:
    """Splits of sentences whose label is told by one word: learnable by any model in a few steps."""
    import numpy as np
    from datasets import Dataset

    rng = np.random.default_rng(0)
    splits = {}
    for split, size in {"train": 96, "calibration": 48, "validation": 48}.items():
        rows = []
        for i in range(size):
            label = int(rng.integers(2))
            words = list(rng.choice(WORDS[:8] + WORDS[18:24], size=int(rng.integers(2, 12))))
            words.insert(int(rng.integers(len(words))), str(rng.choice(POSITIVE if label else NEGATIVE)))
            rows.append({"id": i, "text": " ".join(words), "label": label})
        splits[split] = Dataset.from_list(rows)
    return splits


@pytest.fixture(scope="session")
def stop_words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A few stop words where NLTK looks; for the whole session, since NLTK reads a corpus from one place only."""
    import nltk

    data = tmp_path_factory.mktemp("nltk")
    (data / "corpora" / "stopwords").mkdir(parents=True)
    (data / "corpora" / "stopwords" / "english").write_text("a\nthe\nand\nis\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(data), *nltk.data.path])
        yield
