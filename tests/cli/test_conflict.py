"""`offramp conflict`, and conflict watched during training, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from offramp._core.records import read_record, read_records
from offramp.cli.main import run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    rows = [f"{row['text']},{row['label']}" for split in tiny_data.values() for row in split]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


def train(table: Path, encoder: Path, output: Path, strategy: str, *options: str) -> int:
    arguments = ["train", str(table), "--output", str(output), "--backbone", str(encoder)]
    arguments += ["--exits", "1", "2", "4", "--strategy", strategy, "--max-steps", "4", "--batch-size", "8"]
    return run([*arguments, *options])


def test_during_training_and_after(
    table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = tmp_path / "joint"
    assert train(table, tiny_encoder, run_folder, "joint", "--conflict-steps", "0", "4") == 0
    record = read_record(run_folder / "conflict" / "record.json")
    assert record["metrics"]["steps"] == [0, 4]
    rows = pq.read_table(run_folder / "conflict" / record["tables"]["conflict"])
    assert rows.num_rows == 2 * (3 + 1)
    owners = pq.read_table(run_folder / "conflict" / record["tables"]["owners"]).to_pylist()
    exits = record["metrics"]["exit_layers"]
    assert len(owners) == 2 * sum(exits)  # steps; an exit is above as many layers as its number
    assert sum(r["norm_share"] for r in owners if r["step"] == 4 and r["layer"] == 1) == pytest.approx(1)
    for name in ("conflict", "owners"):
        assert (run_folder / "conflict" / f"{name}.svg").stat().st_size
    capsys.readouterr()

    after = ["conflict", str(run_folder), "--data", str(table), "--batches", "2", "--json"]
    assert run([*after, "--output", str(tmp_path / "after")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert -1 <= told["cosine"] <= 1
    assert 0 <= told["negative_share"] <= 1
    assert all(0 <= share <= 1 for share in told["norm_shares"])
    assert len(told["projection_shares"]) == len(told["exit_layers"])
    assert (tmp_path / "after" / "conflict.png").stat().st_size
    assert len(read_records(tmp_path)) == 3

    # The same call again loads the finished run, whose measurements stay.
    assert train(table, tiny_encoder, run_folder, "joint", "--conflict-steps", "0", "4") == 0
    assert read_record(run_folder / "conflict" / "record.json")["metrics"]["steps"] == [0, 4]
    assert train(table, tiny_encoder, tmp_path / "short", "joint", "--conflict-steps", "99") == 0
    assert "no conflict was measured" in capsys.readouterr().err


def test_sweet_has_none_by_construction(
    table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(table, tiny_encoder, tmp_path / "sweet", "sweet") == 0
    capsys.readouterr()
    told = {}
    for graph in ("own", "joint"):
        command = ["conflict", str(tmp_path / "sweet"), "--data", str(table), "--graph", graph, "--json"]
        assert run(command) == 0
        told[graph] = json.loads(capsys.readouterr().out)
    assert told["own"]["cosine"] == told["own"]["negative_share"] == 0
    assert told["joint"]["cosine"] != 0
    assert told["own"]["norm_shares"][0] == 1
    assert told["joint"]["norm_shares"][0] < 1


def test_what_cannot_be_measured(
    table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(table, tiny_encoder, tmp_path / "mm", "multi_model", "--conflict-steps", "0") == 2
    assert "share none" in capsys.readouterr().err
