"""Every block of the start page, the guides and the concepts runs as it stands."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cogapp import Cog

from offramp.attacks.similarity import judges
from offramp.attacks.similarity.base import Judge
from offramp.backbones.packaged import PACKAGED as ENCODERS
from offramp.data import load
from offramp.data.rows import Rows, Source
from offramp.data.tasks import Task
from tests.docs.pages import DOCS, PAGES, blocks

ROOT = DOCS.parent
START, GUIDES = DOCS / "start.md", [page for page in PAGES if page.name != "start.md"]
FIGURES = [page for page in PAGES if page.parent.name == "concepts"]
# These make ONNX graphs.
HEAVY = {"export-and-serve.md"}


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
def stand_ins(six_layers: Path, tiny_data: Any) -> Any:
    """The names of the pages, without a download: a tiny encoder, made-up sentences, a judge that counts letters."""
    rows = [row for split in tiny_data.values() for row in split]
    texts = [row["text"] + end for end in ("", " film", " plot", " story", " cast", " script") for row in rows]
    labels = ["positive" if row["label"] else "negative" for row in rows] * 6
    movies = Source(
        "movies",
        {"train": Rows(texts, labels, "movies")},
        Task("movies", ("negative", "positive"), ("accuracy",)),
        validation_size=200,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "minilm-l6", lambda: six_layers)
        patch.setattr(load, "read_packaged", {"movies": movies}.__getitem__)
        patch.setattr(judges, "UniversalSentenceEncoder", LetterJudge)
        yield


def run_page(page: Path) -> None:
    """Run the blocks of a page in the current folder."""
    scope: dict[str, Any] = {}
    for block in blocks(page):
        block.run(scope)


@pytest.fixture(scope="module")
def started(stand_ins: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as the start page leaves it."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(START)
    return folder


def test_the_start_page_leaves_what_it_names(started: Path) -> None:
    for path in re.findall(r"`((?:runs|answers)[\w/.-]*)`", START.read_text(encoding="utf-8")):
        assert (started / path).exists(), path


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name in HEAVY), id=page.stem) for page in GUIDES],
)
def test_blocks_run_after_the_start_page(
    page: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(started, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.slow
def test_all_pages_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for page in PAGES:
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_a_page_links_is_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", FIGURES, ids=lambda page: page.stem)
def test_a_concept_has_a_figure_and_the_tables_of_the_reports(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    assert "![" in text or "```mermaid" in text
    monkeypatch.chdir(ROOT)
    assert Cog().main(["cog", "--check", str(page)]) == 0, f"{page.name} is behind its reports: make docs"
