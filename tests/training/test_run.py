"""A training run as a user sees it: it learns, it resumes exactly, it refuses what cannot work."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp._core.errors import ConfigError, DataError, OfframpError
from offramp._core.records import read_records
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.base import SegmentedModel
from offramp.training.run import train
from offramp.training.strategies import Joint, Strategy, Sweet
from offramp.training.trainer import SECONDS, last_checkpoint

QUICK: dict[str, Any] = {"batch_size": 8, "learning_rate": 3e-3}


def fresh(encoder: Path, strategy: str) -> Any:
    cls = (
        MultiModelForSequenceClassification
        if strategy == "multi_model"
        else MultiExitForSequenceClassification
    )
    return cls.from_backbone(str(encoder), [1, 2, 4], labels=["no", "yes"])


@pytest.mark.parametrize("strategy", ["joint", "sweet", "multi_model"])
def test_every_exit_learns(strategy: str, tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    model = train(
        fresh(tiny_encoder, strategy), tiny_data, strategy=strategy, output_dir=tmp_path, epochs=8, **QUICK
    )
    found = trace(model, tiny_data["validation"])
    accuracy = (found.predictions() == found.require_labels()[:, None]).mean(axis=0)
    assert (accuracy > 0.85).all(), accuracy
    (record,) = read_records(tmp_path)
    assert record["config"]["strategy"] == strategy
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("strategy", "cls"), [("joint", Joint), ("sweet", Sweet), ("multi_model", Joint)])
def test_resumed_run_equals_an_uninterrupted_one(
    strategy: str,
    cls: type[Strategy],
    tiny_encoder: Path,
    tiny_data: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C in the second epoch, then the same call again: the same weights to the bit."""
    whole = train(
        fresh(tiny_encoder, strategy),
        tiny_data,
        strategy=strategy,
        output_dir=tmp_path / "whole",
        epochs=3,
        **QUICK,
    )
    steps = 0
    original = cls.step

    def interrupted(self: Any, *args: Any) -> Any:
        nonlocal steps
        training = isinstance(
            args[0], SegmentedModel
        )  # the audit of shared parameters takes steps of its own
        steps += training
        if training and steps == 17:  # 12 steps an epoch
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    monkeypatch.setattr(cls, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(
            fresh(tiny_encoder, strategy),
            tiny_data,
            strategy=strategy,
            output_dir=tmp_path / "cut",
            epochs=3,
            **QUICK,
        )
    assert steps == 17
    resumed = train(
        fresh(tiny_encoder, strategy),
        tiny_data,
        strategy=strategy,
        output_dir=tmp_path / "cut",
        epochs=3,
        **QUICK,
    )
    members = 3 if strategy == "multi_model" else 1
    assert steps == 36 * members  # no step was taken twice
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_finished_run_is_loaded_and_another_is_refused(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    first = train(fresh(tiny_encoder, "sweet"), tiny_data, output_dir=tmp_path, max_steps=3, **QUICK)
    stamp = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    again = train(fresh(tiny_encoder, "sweet"), tiny_data, output_dir=tmp_path, max_steps=3, **QUICK)
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(ConfigError, match=r"another run \(seed 0 there, 1 here\)"):
        train(fresh(tiny_encoder, "sweet"), tiny_data, output_dir=tmp_path, max_steps=3, seed=1, **QUICK)


def test_another_encoder_is_another_run(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    """Same architecture and depth: nothing but its name or its size tells it apart."""
    model = fresh(tiny_encoder, "joint")
    train(model, tiny_data, strategy="joint", output_dir=tmp_path, max_steps=1, **QUICK)
    other = tmp_path / "other"
    shutil.copytree(tiny_encoder, other)
    with pytest.raises(ConfigError, match="another run .*encoder '.*' there, 'other' here"):
        train(fresh(other, "joint"), tiny_data, strategy="joint", output_dir=tmp_path, max_steps=1, **QUICK)
    settings = json.loads((tmp_path / "settings.json").read_text())
    for key in ("encoder", "parameters"):
        del settings[key]
    (tmp_path / "settings.json").write_text(json.dumps(settings))  # of a run from before they were noted
    train(
        fresh(tiny_encoder, "joint"), tiny_data, strategy="joint", output_dir=tmp_path, max_steps=1, **QUICK
    )


@pytest.mark.parametrize("name", ["model", "checkpoints"])
def test_what_no_run_wrote_is_left_alone(
    name: str, tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=rf"holds files that no run wrote \({name}\)"):
        train(fresh(tiny_encoder, "sweet"), tiny_data, output_dir=tmp_path, max_steps=1, **QUICK)
    assert [path.name for path in tmp_path.rglob("*")] == [name, "thesis.txt"]


def test_an_output_that_is_a_file_and_damaged_settings(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OfframpError, match="a file stands where a folder is needed"):
        train(fresh(tiny_encoder, "sweet"), tiny_data, output_dir=tmp_path / "file", max_steps=1, **QUICK)
    for damage, message in ((b"", "is empty"), (b"[1]", "belongs to no"), (b"\xff", "cannot be read")):
        (tmp_path / "settings.json").write_bytes(damage)
        with pytest.raises(OfframpError, match=rf"settings\.json {message}.* folder"):
            train(fresh(tiny_encoder, "sweet"), tiny_data, output_dir=tmp_path, max_steps=1, **QUICK)


def stopped_after_a_step(encoder: Path, data: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that Ctrl-C stopped."""

    def interrupted(self: Any, *args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    original = Joint.step
    with monkeypatch.context() as patched:
        patched.setattr(Joint, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(encoder, "joint"), data, strategy="joint", output_dir=folder, max_steps=3, **QUICK)
    return folder / "checkpoints" / "all" / "checkpoint-1"


def test_a_damaged_checkpoint_is_named_and_one_cut_short_passed_over(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: dict[str, Any] = {"strategy": "joint", "output_dir": tmp_path, "max_steps": 3, **QUICK}
    checkpoint = stopped_after_a_step(tiny_encoder, tiny_data, tmp_path, monkeypatch)
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth", "config.json"):
        whole = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(whole[:20])
        with pytest.raises(ConfigError, match="cannot resume from .*checkpoint-1 .*delete it"):
            train(fresh(tiny_encoder, "joint"), tiny_data, **run)
        (checkpoint / name).write_bytes(whole)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).rename(tmp_path / name)
        with pytest.raises(
            ConfigError, match=f"cannot resume from .*checkpoint-1, which lacks {name}: delete"
        ):
            train(fresh(tiny_encoder, "joint"), tiny_data, **run)
        (tmp_path / name).rename(checkpoint / name)
    shutil.copytree(checkpoint, checkpoint.with_name("checkpoint-2"))
    (checkpoint.with_name("checkpoint-2") / "trainer_state.json").unlink()  # the last file of a checkpoint
    assert last_checkpoint(checkpoint.parent) == checkpoint
    train(fresh(tiny_encoder, "joint"), tiny_data, **run)
    assert not (tmp_path / "checkpoints").exists()


def test_the_seconds_of_a_stopped_run_count(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = stopped_after_a_step(tiny_encoder, tiny_data, tmp_path, monkeypatch) / SECONDS
    assert 0 < float(note.read_text(encoding="utf-8")) < 1000
    note.write_text("1000", encoding="utf-8")
    train(
        fresh(tiny_encoder, "joint"), tiny_data, strategy="joint", output_dir=tmp_path, max_steps=3, **QUICK
    )
    (record,) = read_records(tmp_path)
    assert 1000 < record["metrics"]["train_seconds"] < 2000


def test_a_checkpoint_that_cannot_be_written_says_so(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672]")  # what torch makes of a full disk

    monkeypatch.setattr("transformers.trainer.torch.save", full)
    run: dict[str, Any] = {"strategy": "two_stage", "output_dir": tmp_path, "max_steps": 1, **QUICK}
    with pytest.raises(OfframpError, match="cannot write .*checkpoints.*free some space"):
        train(fresh(tiny_encoder, "two_stage"), tiny_data, **run)


def test_a_tokenizer_without_a_padding_token(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    model, bare = fresh(tiny_encoder, "joint"), fresh(tiny_encoder, "joint")
    bare.tokenizer.pad_token = None
    for one, name in ((model, "with"), (bare, "bare")):
        train(one, tiny_data, strategy="joint", output_dir=tmp_path / name, max_steps=2, **QUICK)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), bare.parameters(), strict=True))


def test_two_seeds_differ_and_one_seed_repeats(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    weights = [
        torch.cat(
            [
                p.detach().flatten()
                for p in train(
                    fresh(tiny_encoder, "joint"),
                    tiny_data,
                    strategy="joint",
                    output_dir=tmp_path / str(i),
                    max_steps=4,
                    seed=seed,
                    **QUICK,
                ).parameters()
            ]
        )
        for i, seed in enumerate((0, 0, 1))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_regression_learns(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    data = {
        split: rows.map(lambda row: {"label": float(row["label"]) * 4 - 2}, load_from_cache_file=False)
        for split, rows in (
            (s, r.remove_columns("label").add_column("label", [float(x) for x in r["label"]]))
            for s, r in tiny_data.items()
        )
    }
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [2, 4], kind="regression")
    train(model, data, strategy="joint", output_dir=tmp_path, epochs=8, **QUICK)
    found = trace(model, data["validation"])
    for k in range(2):
        assert np.corrcoef(found.predictions()[:, k], found.require_labels())[0, 1] > 0.7


def test_what_cannot_be_trained(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    model = fresh(tiny_encoder, "sweet")
    train_set = tiny_data["train"]
    with pytest.raises(ConfigError, match="MultiModelForSequenceClassification.from_backbone"):
        train(model, tiny_data, strategy="multi_model", output_dir=tmp_path)
    with pytest.raises(ConfigError, match="not 'joint'"):
        train(fresh(tiny_encoder, "multi_model"), tiny_data, strategy="joint", output_dir=tmp_path)
    with pytest.raises(DataError, match="no column 'label'"):
        train(model, {"train": train_set.remove_columns("label")}, output_dir=tmp_path)
    with pytest.raises(DataError, match="is empty"):
        train(model, {"train": train_set.select([])}, output_dir=tmp_path)
    wrong = train_set.remove_columns("label").add_column("label", [7] * len(train_set))
    with pytest.raises(DataError, match=r"0\.\.1, got \[7\]"):
        train(model, {"train": wrong}, output_dir=tmp_path)
    halves = train_set.remove_columns("label").add_column("label", [0.5] * len(train_set))
    with pytest.raises(DataError, match=r"class labels in 0\.\.1, got \[0\.5\]"):
        train(model, {"train": halves}, output_dir=tmp_path)
    score = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1], kind="regression")
    unknown = train_set.remove_columns("label").add_column("label", [math.nan] * len(train_set))
    with pytest.raises(DataError, match="expected finite numbers as labels"):
        train(score, {"train": unknown}, strategy="joint", output_dir=tmp_path)
    with pytest.raises(ConfigError, match="epochs must be a positive number, got 0"):
        train(model, tiny_data, output_dir=tmp_path, epochs=0)
    with pytest.raises(ConfigError, match="learning_rate"):
        train(model, tiny_data, output_dir=tmp_path, learning_rate=5.0)
    assert not list(tmp_path.iterdir())  # nothing written half


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, got -1"),
        ({"seed": "3"}, "seed must be a whole number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"learning_rate": "1e-4"}, "learning_rate must be between 0 and 1, got '1e-4'"),
        ({"strategy": ["joint"]}, "unknown strategy .'joint'.. Did you mean 'joint'"),
        ({"strategy_options": ["weights"]}, "strategy_options must be values by name"),
        ({"callbacks": object()}, "callbacks must be a list of"),
        ({"model": "runs/a"}, "expected a model of offramp, got str: load it with offramp.load_model"),
        ({"model": None}, "expected a model of offramp, got NoneType: make one with from_backbone"),
        ({"data": {"validation": None}}, "expected data with splits, .* got a dict of other things"),
    ],
)
def test_arguments_are_checked_before_anything_is_made(
    arguments: dict[str, Any], message: str, tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    model = fresh(tiny_encoder, "joint")
    model.policy = kept = object()
    given = {
        "model": model,
        "data": tiny_data,
        "strategy": "joint",
        "output_dir": tmp_path / "run",
        **arguments,
    }
    with pytest.raises(OfframpError, match=message):
        train(**given)
    assert not (tmp_path / "run").exists()
    assert model.policy is kept


def test_numbers_of_other_libraries_are_the_same_run(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    numbers: dict[str, Any] = {
        "seed": np.int64(3),
        "max_steps": torch.tensor(1),
        "batch_size": np.int32(8),
        "weight_decay": np.float64(0.5),
        "strategy_options": {"weights": np.str_("linear")},
    }
    plain = {"seed": 3, "max_steps": 1, "batch_size": 8, "weight_decay": 0.5}
    options = {"strategy": "joint", "output_dir": tmp_path, "progress": False}
    first = train(fresh(tiny_encoder, "joint"), tiny_data, **options, **numbers)
    again = train(
        fresh(tiny_encoder, "joint"), tiny_data, **options, **plain, strategy_options={"weights": "linear"}
    )
    assert len(read_records(tmp_path)) == 1  # the second call loads the run of the first
    assert again.pair is False
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
