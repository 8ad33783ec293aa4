"""`offramp import`, and what can be done with a model that came in this way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.cli.main import run
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace
from offramp.model import read_model
from tests.model.released import Released, make_config, make_state, write


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_tokenizer: Any) -> Path:
    """A DeeBERT checkpoint in the old format."""
    released = Released("deebert", "bert", depth=2)
    config = make_config(released, len(tiny_tokenizer))
    folder = write(tmp_path / "released", config, make_state(released, config), pickled=True)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def table(tmp_path: Path, tiny_data: Any) -> Path:
    rows = [row for split in tiny_data.values() for row in split]
    lines = [
        json.dumps({"text": row["text"] + end, "label": ["bad", "good"][row["label"]]})
        for row in rows
        for end in ("", " film")
    ]
    (tmp_path / "reviews.jsonl").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return tmp_path / "reviews.jsonl"


def test_import_tune_evaluate_attack_export(
    checkpoint: Path, table: Path, tmp_path: Path, tiny_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "runs" / "deebert")
    arguments = ["import", str(checkpoint), "--layout", "deebert", "--output", model]
    assert run([*arguments, "--labels", "bad", "good", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["labels"] == ["bad", "good"]
    assert said["exit_layers"] == [1, 2]

    assert run(["tune", model, str(table), "--criterion", "entropy", "--max-cost", "0.8"]) == 0
    assert run(["evaluate", model, "--data", str(table), "--criterion", "entropy"]) == 0
    attack = ["attack", model, str(table), "--criterion", "entropy", "--examples", "4", "--rounds", "1"]
    assert run([*attack, "--top-n", "4", "--similarity", "none", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["adversarial_depth"] >= measured["clean_depth"]

    served = tmp_path / "served"
    policy = Path(model) / "policy-entropy.json"
    assert run(["export", model, "--output", str(served), "--policy", str(policy)]) == 0
    texts = tiny_data["validation"]["text"]
    decided = Engine(served, threads=1).decide(texts)
    np.testing.assert_array_equal(decided.exit, Engine(model, policy).decide(texts).exit)
    logits = trace(read_model(model), tiny_data["validation"]).logits
    predictions = logits.argmax(-1)[np.arange(len(texts)), decided.exit]
    np.testing.assert_array_equal(decided.prediction, predictions)


def test_a_folder_in_use_is_left_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    arguments = ["import", str(checkpoint), "--layout", "deebert", "--output", str(tmp_path / "used")]
    assert run(arguments) == 2
    assert "holds something already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["notes.txt"]


def test_another_layout_is_one_clear_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["import", str(checkpoint), "--layout", "pabee", "--output", str(tmp_path / "new")]
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "it is in the layout 'deebert'" in said
    assert not (tmp_path / "new").exists()
