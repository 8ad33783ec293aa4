"""Layer 0 from the command line, and training rows from which it can learn nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from offramp.cli.main import run
from offramp.criteria import make_criterion
from offramp.data import TextData
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.inference.loading import load_model
from offramp.inference.tracing import trace
from offramp.training.run import train, untrained_model

STEPS = ("--max-steps", "2", "--batch-size", "8")


def write(folder: Path, rows: list[tuple[str, str]]) -> str:
    path = folder / "own.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


def test_commands_take_a_model_with_layer_0(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"{row['text']} {row['id']}", str(row["label"])) for row in tiny_data["train"]]
    data, folder = write(tmp_path, rows), str(tmp_path / "run")
    made = [
        "train",
        data,
        "--output",
        folder,
        "--backbone",
        str(tiny_encoder),
        "--exits",
        "0",
        "1",
        "4",
        *STEPS,
    ]
    assert run([*made, "--json"]) == 0
    assert [row["exit_layer"] for row in json.loads(capsys.readouterr().out)["exits"]] == [0, 1, 4]
    assert run(["tune", folder, data, "--max-cost", "0.9"]) == 0
    assert run(["evaluate", folder, "--data", data, "--timed", "0", "--json"]) == 0
    attacked = ["attack", folder, data, "--examples", "3", "--rounds", "1", "--similarity", "none"]
    assert run(attacked) == 0
    assert run(["report", folder, "--output", str(tmp_path / "report")]) == 0


def test_layer_0_alone_is_refused_in_one_line(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path, [(row["text"], str(row["label"])) for row in tiny_data["train"]])
    command = ["train", data, "--output", str(tmp_path / "run"), "--backbone", str(tiny_encoder), "--exits"]
    assert run([*command, "0", *STEPS]) != 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("offramp: layer 0 is an exit before the encoder: add at least one layer")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("texts", "labels"),
    [(["good film", "bad plot"], [1, 1]), (["§ §", "§"], [0, 1]), (["good film"], [1])],
    ids=["one class", "no tokens", "one row"],
)
def test_rows_that_teach_nothing_keep_every_text(
    texts: list[str],
    labels: list[int],
    tiny_encoder: Path,
    tiny_data: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = Dataset.from_dict({"id": range(len(texts)), "text": texts, "label": labels})
    splits = {**tiny_data, "train": rows}
    data = TextData("own", splits, ("no", "yes"), "classification", False, ("accuracy",))
    model = untrained_model("joint", str(tiny_encoder), [0, 1, 4], data)
    with caplog.at_level(logging.WARNING):
        train(model, data, "joint", output_dir=tmp_path, max_steps=1, progress=False)
    assert "layer 0 has nothing to learn from: no text will leave there" in caplog.text
    loaded = load_model(str(tmp_path / "model"))
    assert (trace(loaded, tiny_data["validation"]).logits[:, 0] == 0).all()
    engine = Engine(loaded, Policy(make_criterion("confidence", 0.51), loaded.exit_layers))
    assert all(answer.exit_layer > 0 for answer in engine.predict(["good film", "", "§"]))
