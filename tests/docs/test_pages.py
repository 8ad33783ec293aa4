"""Every block of the start page, the guides and the concepts runs as it stands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from cogapp import Cog
from cyclopts import CycloptsError

import offramp
from offramp.attacks.recipes import RECIPES
from offramp.attacks.similarity import judges
from offramp.attacks.similarity.base import Judge
from offramp.backbones import PACKAGED, SPECS
from offramp.criteria import CRITERIA
from offramp.data import load
from offramp.data.rows import Rows, Source
from offramp.data.tasks import Task
from offramp.training.strategies import STRATEGIES
from tests.docs.pages import CONCEPTS, DOCS, GUIDES, PAGES, START, blocks, check_arguments

ROOT = DOCS.parent


class LetterJudge(Judge):
    """Counts letters: a judge of similarity that needs no download."""

    name = "universal_sentence_encoder"

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[1.0, *(text.count(letter) for letter in "aeiou")] for text in texts])

    def is_encoder_of(self, model: Any) -> bool:
        return False


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """Folder of a six-layer encoder of width 32 with random weights, in place of minilm-l6."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("six-layers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=32,
            num_hidden_layers=6,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stand_ins(six_layers: Path, tiny_data: Any) -> Iterator[None]:
    """The names of the pages, without a download: a tiny encoder, made-up sentences, a judge that counts letters."""
    rows = [row for split in tiny_data.values() for row in split]
    texts = [
        row["text"] + end for end in ("", " film", " plot", " story", " cast", " script") for row in rows
    ]
    labels = ["positive" if row["label"] else "negative" for row in rows] * 6
    movies = Source(
        "movies",
        {"train": Rows(texts, labels, "movies")},
        Task("movies", ("negative", "positive"), ("accuracy",)),
        validation_size=200,
    )
    with pytest.MonkeyPatch.context() as context:
        context.setitem(PACKAGED, "minilm-l6", lambda: six_layers)
        context.setattr(load, "read_packaged", {"movies": movies}.__getitem__)
        context.setattr(judges, "UniversalSentenceEncoder", LetterJudge)
        yield


def run_page(page: Path) -> dict[str, Any]:
    """Run the blocks of a page in the current folder; the names that they leave."""
    scope: dict[str, Any] = {}
    for block in blocks(page):
        block.run(scope)
    return scope


@pytest.fixture(scope="module")
def started(stand_ins: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as the start page leaves it."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as context:
        context.chdir(folder)
        run_page(START)
    return folder


@pytest.fixture
def own_registries() -> Iterator[None]:
    """What a page adds to the dicts of methods is gone after the test."""
    with ExitStack() as stack:
        for methods in (CRITERIA, STRATEGIES, RECIPES, SPECS):
            stack.enter_context(patch.dict(methods))
        yield


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_takes_its_options_and_every_python_block_parses(page: Path) -> None:
    """Quick: pages whose commands train and attack run in the slow tests only."""
    for block in blocks(page):
        for arguments in block.commands():
            check_arguments(arguments)
        if block.language == "python":
            compile(block.text, page.name, "exec")


def test_an_option_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(CycloptsError, match="--max-accurracy-drop"):
        check_arguments(["tune", "runs/first", "movies", "--max-accurracy-drop", "0.02"])


@pytest.mark.usefixtures("stand_ins", "own_registries")
def test_the_methods_of_the_page_on_extending_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = offramp.MultiExitForSequenceClassification.from_backbone(
        "minilm-l6", exits=[1, 2, 4, 6], labels=["negative", "positive"]
    )
    model.save_pretrained("runs/first")
    names = run_page(DOCS / "guides" / "extend.md")
    assert names["policy"].criterion.name == "logit_gap"
    assert names["result"].summary()["examples"] == 4


@pytest.mark.parametrize("name", ["slowdown-attacks", "speed-up"])
def test_python_of_the_concepts_runs(name: str) -> None:
    scope: dict[str, Any] = {}
    python = [block for block in blocks(DOCS / "concepts" / f"{name}.md") if block.language == "python"]
    assert python
    for block in python:
        block.run(scope)


@pytest.mark.slow
def test_the_start_page_leaves_what_it_names(started: Path) -> None:
    for path in re.findall(r"`((?:runs|answers)[\w/.-]*)`", START.read_text(encoding="utf-8")):
        assert (started / path).exists(), path


@pytest.mark.slow
@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize("page", [*GUIDES, *CONCEPTS], ids=lambda page: page.stem)
def test_blocks_run_after_the_start_page(
    page: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(started, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.slow
@pytest.mark.usefixtures("own_registries")
def test_all_pages_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_a_page_links_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", CONCEPTS, ids=lambda page: page.stem)
def test_a_concept_has_a_figure_and_the_numbers_of_the_records(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    assert "![" in text or "```mermaid" in text
    monkeypatch.chdir(ROOT)
    assert Cog().main(["cog", "--check", str(page)]) == 0, f"{page.name} is behind its records: make docs"
