"""The model card: written with the weights, brought up to date from the records, never over anybody's own text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import offramp
from offramp._core.records import write_record
from offramp.criteria import make_criterion
from offramp.model.card import END, _digest, update_card
from offramp.model.config import MultiExitConfig

FROZEN = Path(__file__).parents[1] / "frozen" / "runs" / "joint"
NEW_POLICY = make_criterion("entropy", 0.25)


def write_config(folder: Path, labels: tuple[str, ...] = ("negative", "positive"), **options: Any) -> None:
    backbone = {"model_type": "bert", "num_hidden_layers": 6, "_name_or_path": "somewhere/minilm"}
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    MultiExitConfig(
        backbone_config=backbone, exits=[1, 2, 4, 6], strategy="joint", **(names | options)
    ).save_pretrained(folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as the commands leave it, without the weights, which no card reads."""
    shutil.copytree(FROZEN, tmp_path / "run")
    write_config(tmp_path / "run" / "model")
    return tmp_path / "run"


def card_of(folder: Path) -> str:
    path = update_card(folder)
    assert path is not None
    return path.read_text(encoding="utf-8")


def test_it_gives_the_numbers_of_the_records(run: Path) -> None:
    card = card_of(run)
    assert (run / "model" / "README.md").read_text(encoding="utf-8") == card
    header = yaml.safe_load(card.split("---")[1])
    assert (header["library_name"], header["pipeline_tag"]) == ("offramp", "text-classification")
    assert "joint" in header["tags"]
    for line in (
        "# minilm with exits after layers 1, 2, 4, 6",
        "- Task: texts in 2 classes: negative, positive",
        "- Data: 2000 training examples (fingerprint f8d498b65ca5c850)",
        "- Epochs: 2; batches of 16; seed 0",
        "| confidence | 0.738 | 0.294, 0.601, 1.513, 1.793 | max_accuracy_drop 0.01 | accuracy 0.795 | 0.556 |",
        "| 4 | 0.667 | 0.786 | 0.759 | 0.810 |",
        "| same-word | movies | 40 | 4.075 | 6.000 | 1.000 | 0.775 | 0.450 |",
        "- attack: only 40 examples: intervals are wide [few]",
    ):
        assert line in card.splitlines()
    assert "the accuracy is 0.777 at a\ncost of 0.582. With all layers it is 0.791." in card
    assert card_of(run) == card


def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    write_config(tmp_path, pair=True)
    card = card_of(tmp_path)
    for text in ("offramp tune FOLDER DATA", "offramp evaluate FOLDER --data", "offramp attack FOLDER DATA"):
        assert text in card
    assert 'predict([("a text", "another text")])' in card
    assert "pairs of texts in 2 classes" in card
    write_config(tmp_path, kind="regression", labels=("score",))
    assert "a score for texts" in card_of(tmp_path)


def test_text_around_the_block_is_kept_and_the_block_brought_up_to_date(run: Path) -> None:
    path = run / "model" / "README.md"
    path.write_text(f"My words before.\n\n{card_of(run)}\nMy words after.\n", encoding="utf-8")
    shutil.rmtree(run / "attack-same-word")
    card = card_of(run)
    assert card.startswith("My words before.\n\n---\n")
    assert card.endswith(f"{END}\n\nMy words after.\n")
    assert "No attack has run" in card


@pytest.mark.parametrize(
    "edit",
    [
        lambda card: card.replace("## Limits", "## Limits, as we see them"),
        lambda card: card.replace(END, ""),
        lambda card: card + card,
        lambda card: "Only my words.\n",
        lambda card: "",
    ],
    ids=["in the block", "no end", "two blocks", "no block", "empty"],
)
def test_a_card_that_somebody_edited_is_left_alone(run: Path, edit: Any) -> None:
    path = run / "model" / "README.md"
    edited = edit(card_of(run))
    path.write_text(edited, encoding="utf-8")
    shutil.rmtree(run / "attack-same-word")
    assert card_of(run) == edited


def test_a_card_in_another_encoding_stays_as_it_is(run: Path) -> None:
    path = run / "model" / "README.md"
    path.write_bytes("déjà\n\n".encode("latin-1") + card_of(run).encode())
    shutil.rmtree(run / "attack-same-word")
    update_card(run)
    assert path.read_bytes().startswith("déjà\n".encode("latin-1"))
    assert b"No attack has run" in path.read_bytes()


NAMES = st.text(min_size=1, max_size=40).filter(str.strip) | st.sampled_from(
    [
        "a|b",
        "<script>x</script>",
        f"x {END} y",
        "-->",
        "{{ 7 * 7 }}",
        "[a](http://b)",
        "*a*",
        "\x1b[31m",
        "a\nb",
        "# a",
    ]
)


@settings(deadline=None, max_examples=40)
@given(name=NAMES)
def test_a_name_out_of_data_is_shown_as_it_is(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("card")
    write_config(folder)
    metrics = {"examples": 4, "doubts": [name], "metric": "accuracy"}
    config = {"recipe": "same-word", "data": name}
    write_record(folder / "attack-a", command="attack", config=config, metrics=metrics, seed=0)
    card = card_of(folder)
    assert card.count(END) == 1
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card.split("---\n", 2)[2])
    html = [token.content for token in tokens if token.type.startswith("html")]
    assert all(text.strip().startswith("<!-- ") for text in html)
    assert sum(token.type == "html_block" for token in tokens) == 2
    assert not [child for token in tokens for child in token.children or () if child.type in FOREIGN]
    assert len([token for token in tokens if token.type == "td_open"]) == 8  # one row of the table of attacks
    assert sum(token.type == "list_item_open" for token in tokens) == 3 + 3 + 1


FOREIGN = ("html_inline", "link_open", "em_open", "strong_open", "image")


def test_a_damaged_record_or_policy_is_left_out(run: Path) -> None:
    (run / "attack-same-word" / "record.json").write_text("{", encoding="utf-8")
    (run / "evaluation" / "per_exit.parquet").write_bytes(b"PAR1")
    (run / "policy-confidence.json").write_text("[]", encoding="utf-8")
    card = card_of(run)
    for text in ("No attack has run", "Nothing is measured yet", "There is no policy yet"):
        assert text in card


def test_a_folder_without_a_model_gets_none(tmp_path: Path) -> None:
    assert update_card(tmp_path) is None
    assert update_card(tmp_path / "nowhere") is None
    assert not list(tmp_path.iterdir())


def test_saved_with_every_model(tiny_encoder: Path, tmp_path: Path) -> None:
    model = offramp.MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [0, 1, 4], labels=["no", "yes"]
    )
    model.save_pretrained(tmp_path / "model", policy=offramp.Policy(NEW_POLICY, (0, 1, 4)))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "with exits after layers 0, 1, 4" in card
    assert "| entropy | 0.250 |" in card
    assert "There is no record of any training beside this model." in card
    block = card[card.index("-->\n") + 4 : card.index(END)]
    assert f"<!-- offramp {_digest(block)}:" in card
    cascade = offramp.MultiModelForSequenceClassification.from_backbone(str(tiny_encoder), [1, 4])
    cascade.save_pretrained(tmp_path / "cascade")
    assert "layers 1, 4" in (tmp_path / "cascade" / "README.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "cascade" / "config.json").read_text())["model_type"] == "offramp-cascade"
