"""A hundred and fifty rows: every command works, and every refusal's advice works when it is followed."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import CalibrationError, ConfigError
from offramp.calibration import tune
from offramp.cli.common import DataOptions
from offramp.cli.main import run
from offramp.data import load_data
from offramp.inference.loading import load_model
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Path:
    rows = [row for split in tiny_data.values() for row in split]
    texts = {f"{row['text']} {row['id']}": "good" if row["label"] else "bad" for row in rows}
    lines = ["text,label", *(f"{text},{label}" for text, label in list(texts.items())[:150])]
    path = tmp_path_factory.mktemp("small") / "reviews.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, table: Path, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("run") / "sweet"
    train = [
        "train",
        str(table),
        "--output",
        str(folder),
        "--backbone",
        str(tiny_encoder),
        "--exits",
        "1",
        "4",
    ]
    assert run([*train, "--max-steps", "4", "--batch-size", "8"]) == 0
    return folder


def test_every_command_takes_150_rows(small: Path, table: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, data = str(small), str(table)
    with caplog.at_level(logging.WARNING):
        assert run(["tune", model, data]) == 0
    assert "15 calibration examples are few" in caplog.text
    assert "--calibration-size" in caplog.text
    assert run(["tune", model, data, "--criterion", "entropy", "--max-cost", "0.9"]) == 0
    assert run(["evaluate", model, "--data", data, "--timed", "0"]) == 0
    attack = ["attack", model, data, "--examples", "2", "--rounds", "1", "--similarity", "none"]
    assert run([*attack, "--criterion", "margin"]) == 0


def test_the_advice_of_a_guarantee_works(
    small: Path, table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--guarantee", "disagreement", "--alpha", "0.1"]
    capsys.readouterr()
    assert run(["tune", str(small), str(table), *asked]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "got 15: cut more rows with --calibration-size in every command, train first" in said
    needed = re.search(r"at least (\d+) calibration examples", said)
    assert needed is not None
    size = ["--calibration-size", needed[1]]
    train = ["train", str(table), "--output", str(tmp_path / "again"), "--backbone", str(tiny_encoder)]
    assert run([*train, "--exits", "1", "4", "--max-steps", "2", *size]) == 0
    capsys.readouterr()
    assert run(["tune", str(tmp_path / "again"), str(table), *asked, *size, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["guarantee"] == "learn_then_test"

    # In Python, in both of the ways that the message names.
    model = load_model(tmp_path / "again")
    options: dict[str, Any] = {"guarantee": "disagreement", "alpha": 0.1, "progress": False}
    with pytest.raises(CalibrationError, match=f"at least {needed[1]} calibration examples.*got 15"):
        tune(
            MultiExitForSequenceClassification.from_backbone(
                str(tiny_encoder), [1, 4], labels=["bad", "good"]
            ),
            load_data(table),
            **options,
        )
    sized = load_data(table, calibration_size=int(needed[1]))
    assert tune(model, sized, **options).target["alpha"] == 0.1
    rows = sized["calibration"]
    policy = tune(trace(model, rows), "confidence", guarantee="disagreement", alpha=0.1)
    assert policy.target["alpha"] == 0.1


def test_sizes_that_contradict_the_data(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--calibration-size and --calibrate-on make the same split"):
        DataOptions(calibration_size=20, calibrate_on="validation").load(str(table))
    for split in ("train", "calibration"):
        (tmp_path / f"{split}.csv").write_text(
            table.read_text() if split == "train" else "text,label\nx,good\ny,bad\n"
        )
    with pytest.raises(
        ValueError, match=r"has a calibration split of its own: leave calibration_size \(--calib"
    ):
        load_data(tmp_path, calibration_size=20)
    assert len(load_data(tmp_path, validation_size=12)["validation"]) == 12
