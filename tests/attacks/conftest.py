"""Victims of three tokenizer families, with heads sharp enough that texts leave at different exits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.encoding import TextEncoder

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
SENTENCES = (
    "The film was a truly funny and warm story with great acting",
    "A dull, boring mess: the plot never moves, and the cast isn't good",
    "An unforgettable, heart-warming masterpiece about ordinary people",
    "Who directed this slow and charmless movie? Nobody knows.",
    "good movie good story good acting good script bad music",
    "The screenplay wastes an extraordinarily talented cast on nonsense",
    "funny",
    "",
)

# A WordNet and word vectors in the formats of the real ones: groups of words that mean the same, by part of speech.
SYNSETS = {
    "noun": (
        ("film", "movie", "motion_picture"),
        ("story", "plot", "tale"),
        ("people", "folk"),
        ("script", "book"),
    ),
    "verb": (("direct", "conduct"), ("waste", "squander"), ("move", "go"), ("script", "write")),
    "adj": (
        ("funny", "amusing"),
        ("dull", "boring", "slow"),
        ("good", "great"),
        ("bad",),
        ("warm", "tender"),
    ),
    "adv": (("truly", "really"), ("extraordinarily", "very")),
}
INFLECTED = (
    "films",
    "movies",
    "directed",
    "conducted",
    "wastes",
    "squanders",
    "moves",
    "goes",
    "dulls",
    "tales",
)
MISSPELLINGS = {
    "unforgettable": "unforgetable unforgettible",
    "nonsense": "nonsence none_sense",
    "film": "flim",
}


def synset_line(offset: int, part: str, words: Sequence[str], pointers: Sequence[str] = ()) -> str:
    """A line of a data file of WordNet 3.0."""
    named = " ".join(f"{word} 0" for word in words)
    return f"{offset:08d} 00 {part} {len(words):02x} {named} {len(pointers):03d} {' '.join(pointers)} | a gloss | b  "


@pytest.fixture(scope="session")
def lexicon(tmp_path_factory: Any) -> str:
    """A folder with a tiny WordNet, word vectors and misspellings."""
    folder = tmp_path_factory.mktemp("lexicon")
    for name, groups in SYNSETS.items():
        part = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[name]
        lines = ["  1 This software and database is being provided to you, the LICENSEE, by"]
        for i, words in enumerate(groups):
            good, bad = ("good", "great"), ("bad",)
            opposite = {good: "! 00000003 a 0101", bad: "! 00000002 a 0101"}.get(words, "")
            lines.append(synset_line(i, part, words, [opposite] if opposite else []))
        (folder / f"data.{name}").write_text("\n".join(lines) + "\n")
    words = [w for groups in SYNSETS.values() for group in groups for w in group if w.isalpha()]
    drawn = np.random.default_rng(0).normal(size=(len(words) + len(INFLECTED), 4)) + 2.0
    rows = zip(dict.fromkeys([*words, *INFLECTED]), drawn, strict=False)
    (folder / "vectors.txt").write_text("".join(f"{w} {' '.join(f'{x:.4f}' for x in v)}\n" for w, v in rows))
    (folder / "misspellings.txt").write_text("".join(f"{w} {m}\n" for w, m in MISSPELLINGS.items()))
    return str(folder)


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory: Any, tiny_tokenizer: Any) -> str:
    """A folder with a tiny masked language model of random weights, and its tokenizer."""
    folder = tmp_path_factory.mktemp("masked-lm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(tiny_tokenizer),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
            )
        )
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times without noise: those of the FLOPs spent."""
    known: dict[Any, float] = {}

    def stopwatch(victim: WhiteBoxVictim, segments: Any) -> float:
        key = (id(victim.model), victim.policy.criterion, segments)
        if key not in known:
            known[key] = victim.run([segments])[0].spent * 1e-9
        return known[key]

    monkeypatch.setattr(WhiteBoxVictim, "stopwatch", stopwatch)


def _wrap(core: Tokenizer, **options: Any) -> Any:
    first, last = core.token_to_id("<s>"), core.token_to_id("</s>")
    core.post_processor = processors.Sequence(
        [
            *options.pop("before", []),
            processors.TemplateProcessing(
                single="<s> $A </s>",
                pair="<s> $A </s> </s> $B </s>",
                special_tokens=[("<s>", first), ("</s>", last)],
            ),
        ]
    )
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(names, SPECIAL, strict=True)),
    )


@pytest.fixture(scope="session")
def bpe_tokenizer() -> Any:
    """A byte-level BPE tokenizer as RoBERTa has one: some words are several tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([*SENTENCES, *SENTENCES[4:5] * 3], trainer)
    return _wrap(core, before=[processors.ByteLevel(trim_offsets=True)])


@pytest.fixture(scope="session")
def unigram_tokenizer() -> Any:
    """A SentencePiece-like unigram tokenizer with word marks, as ALBERT and XLM-R have."""
    words = sorted({word.strip(".,:?") for sentence in SENTENCES for word in sentence.split()})
    whole = [word for word in words if word.isalpha() and len(word) < 12]
    letters = sorted({character for word in words for character in word} | set(".,:?'-") - {"e"})
    pieces = [*SPECIAL, "\u2581", *(f"\u2581{word}" for word in whole), *letters, "ing", "ous", "less"]
    scores = [0.0] * len(SPECIAL) + [-2.0 - i / 100 for i in range(len(pieces) - len(SPECIAL))]
    core = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=3))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    return _wrap(core)


@pytest.fixture(scope="session")
def encoders(
    tiny_encoder: Path, bpe_tokenizer: Any, unigram_tokenizer: Any, tmp_path_factory: Any
) -> dict[str, Path]:
    """Folders of tiny random encoders: BERT with word pieces, RoBERTa with byte BPE, ALBERT with unigrams."""
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
    }
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    roberta, albert = tmp_path_factory.mktemp("roberta"), tmp_path_factory.mktemp("albert")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        RobertaModel(RobertaConfig(vocab_size=len(bpe_tokenizer), **shape, **special)).save_pretrained(
            roberta
        )
        AlbertModel(
            AlbertConfig(vocab_size=len(unigram_tokenizer), embedding_size=16, **shape, **special)
        ).save_pretrained(albert)
    bpe_tokenizer.save_pretrained(roberta)
    unigram_tokenizer.save_pretrained(albert)
    return {"bert": tiny_encoder, "roberta": roberta, "albert": albert}


@pytest.fixture(scope="session")
def make_model(encoders: dict[str, Path]) -> Callable[..., Any]:
    """`make_model(family, cascade=…, …)`: a tiny model whose heads are sharp, so that confidences differ.

    Layer 0 is fitted on `SENTENCES`. A test that changes its model passes something of its own as `fresh`.
    """

    @cache
    def make(
        family: str = "bert",
        *,
        exits: tuple[int, ...] = (1, 2, 4),
        cascade: bool = False,
        fresh: object = None,
        labels: int = 2,
        **options: Any,
    ) -> Any:
        cls = MultiModelForSequenceClassification if cascade else MultiExitForSequenceClassification
        options = {"max_length": 48, **options}
        model = cls.from_backbone(str(encoders[family]), list(exits), labels=labels, **options)
        model.fit_linear(TextEncoder.of(model)(SENTENCES), [i % 2 for i in range(len(SENTENCES))])
        heads = [h for member in (model.members if cascade else [model]) for h in member.heads]
        rng = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for head in heads:
                head.classifier.weight.normal_(std=3.0, generator=rng)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def sentences() -> Any:
    """A data set of single sentences; one is empty."""
    rows = [{"id": 10 * i, "text": text, "label": i % 2} for i, text in enumerate(SENTENCES)]
    return Dataset.from_list(rows)


@pytest.fixture(scope="session")
def pairs() -> Any:
    """A data set of pairs."""
    rows = [
        {"id": i, "text": a, "text_pair": b, "label": i % 2}
        for i, (a, b) in enumerate(zip(SENTENCES[:4], SENTENCES[3:7], strict=True))
    ]
    return Dataset.from_list(rows)


@pytest.fixture(scope="session")
def policy_for(sentences: Any) -> Callable[..., Policy]:
    """`policy_for(model, name, threshold)`: by default half of the texts leave at the first exit."""

    def make(
        model: Any, name: str = "confidence", threshold: float | None = None, data: Any = None
    ) -> Policy:
        layers = model.exit_layers
        if threshold is None:
            logits = trace(model, data or sentences).logits[:, 0].astype(float)
            p = np.exp(logits - logits.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            scores = p.max(-1) if name == "confidence" else -(p * np.log(p + 1e-30)).sum(-1)
            threshold = float(np.median(scores))
        return Policy(make_criterion(name, threshold), layers)

    return make


@pytest.fixture
def victim(make_model: Callable[..., Any], policy_for: Callable[..., Policy]) -> WhiteBoxVictim:
    """A tiny BERT under a confidence policy."""
    model = make_model()
    return WhiteBoxVictim(model, policy_for(model))
