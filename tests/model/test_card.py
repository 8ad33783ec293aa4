"""The model card: written with the weights, brought up to date from the records, never over anybody's own text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import offramp
from offramp._core.errors import ConfigError
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


def test_a_policy_that_was_tuned_again_makes_old_numbers_known_as_old(run: Path) -> None:
    sentence = "The policy has changed since"
    assert sentence not in card_of(run)
    path = run / "policy-confidence.json"
    policy = json.loads(path.read_text())
    policy["criterion"]["threshold"] = 0.5
    path.write_text(json.dumps(policy))
    card = card_of(run)
    assert sentence in card
    assert "| confidence | 0.500 |" in card


@pytest.fixture
def trained(tiny_encoder: Path, tmp_path: Path) -> Any:
    """A model in a run's folder, with the records of another one: no card reads the weights."""
    shutil.copytree(FROZEN, tmp_path / "run")
    model = offramp.MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [1, 4], labels=["no", "yes"]
    )
    model.save_pretrained(tmp_path / "run" / "model")
    return offramp.load_model(tmp_path / "run" / "model")


def test_a_copy_of_the_same_weights_keeps_the_numbers_of_the_run(trained: Any, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path / "copy", policy=offramp.Policy(NEW_POLICY, (1, 4)))
    card = (tmp_path / "copy" / "README.md").read_text(encoding="utf-8")
    assert "2000 training examples" in card
    assert "| entropy | 0.250 |" in card
    assert "The policy has changed since" in card  # the evaluation was that of another one
    for parameter in trained.parameters():
        parameter.data += 1
    trained.save_pretrained(tmp_path / "changed")
    assert "There is no record of" in (tmp_path / "changed" / "README.md").read_text(encoding="utf-8")


class Hub:
    """A hub that keeps what is uploaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, card: Path | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import EntryNotFoundError

        self.files: dict[str, bytes] = {}
        self.calls: list[dict[str, Any]] = []

        def create_repo(api: Any, repo_id: str, **options: Any) -> Any:
            self.calls.append(options)
            return SimpleNamespace(repo_id=f"me/{repo_id}")

        def download(api: Any, repo_id: str, name: str, **options: Any) -> str:
            if card is None:
                raise EntryNotFoundError(name)
            return str(card)

        def upload(api: Any, *, folder_path: Path, repo_id: str, **options: Any) -> str:
            self.calls.append(options)
            self.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
            return f"https://hub/{repo_id}"

        monkeypatch.setattr(HfApi, "create_repo", create_repo)
        monkeypatch.setattr(HfApi, "hf_hub_download", download)
        monkeypatch.setattr(HfApi, "upload_folder", upload)


def test_our_card_is_what_is_pushed(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, None)
    policy = offramp.Policy(NEW_POLICY, (1, 4))
    address = trained.push_to_hub("model", policy=policy, private=True, create_pr=True, tags=["films"])
    assert address == "https://hub/me/model"
    card = hub.files["README.md"].decode()
    assert {"config.json", "model.safetensors", "tokenizer.json", "policy-entropy.json"} <= set(hub.files)
    header = yaml.safe_load(card.split("---")[1])
    assert (header["library_name"], header["tags"][-1]) == ("offramp", "films")
    assert "2000 training examples" in card
    assert "| entropy | 0.250 |" in card
    assert hub.calls[0]["private"] is True
    assert hub.calls[1]["create_pr"] is True


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("This is the model card of a 🤗 transformers model that has been pushed on the Hub.", False),
        ("My own words about the model.", True),
    ],
)
def test_a_card_of_the_library_is_replaced_and_an_owners_is_not(
    before: str, kept: bool, trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = tmp_path / "there.md"
    there.write_text(before, encoding="utf-8")
    hub = Hub(monkeypatch, there)
    trained.push_to_hub("model")
    assert (hub.files["README.md"].decode() == before) == kept
    assert (b"with exits after layers 1, 4" in hub.files["README.md"]) != kept


def test_a_folder_is_not_pushed_by_the_way(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"call push_to_hub\(repo_id\) to upload"):
        trained.save_pretrained(tmp_path / "copy", push_to_hub=True)
    assert not (tmp_path / "copy").exists()
