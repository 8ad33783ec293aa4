"""A sweep run for real on a tiny encoder: recorded trial by trial, resumed, never repeated."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from offramp._core.errors import ConfigError
from offramp._core.records import FILE_NAME, read_record
from offramp._core.run_files import GRADIENT_FILE, RunFiles, read_gradients
from offramp._core.trace import Trace
from offramp.criteria.learned import Learned
from offramp.evaluation.curves import area_statistic
from offramp.studies.grid import LOCK, Plan, is_recorded, run_grid, run_trial
from offramp.studies.training.plan import make_sweep
from offramp.studies.training.results import load_results
from offramp.training.strategies import Joint

STEPS = 4


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    rows = [f"{row['text']},{row['label']}" for split in tiny_data.values() for row in split]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tiny_sweep(table: Path, tiny_encoder: Path) -> Plan:
    return make_sweep(
        {
            "backbones": {str(tiny_encoder): [1, 2]},
            "tasks": {str(table): 48},
            "strategies": {
                "joint": None,
                "lte": {"strategy": "joint", "gates": True, "criterion": "learned"},
            },
            "seeds": [0, 1],
            "learning_rate": 1e-3,
            "training": {"max_steps": STEPS, "batch_size": 8},
        }
    )


def count_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int = -1) -> list[int]:
    """Counts training steps into the list's one entry; Ctrl-C comes at one of them."""
    counted, original = [0], Joint.step

    def step(self: Any, *args: Any) -> Any:
        counted[0] += 1
        if counted[0] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args)

    monkeypatch.setattr(Joint, "step", step)
    return counted


def test_a_sweep_stopped_and_run_again(
    tiny_sweep: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[tuple[str, str]] = []
    steps = count_steps(monkeypatch, stop_at=STEPS + 2)  # inside the second trial
    with pytest.raises(KeyboardInterrupt, match="run the same again"):
        run_grid(
            tiny_sweep, tmp_path, on_status=lambda trial, status, _: statuses.append((str(trial), status))
        )
    names = [str(trial) for trial in tiny_sweep.trials]
    assert statuses == [(name, "waiting") for name in names] + [
        (names[0], "running"),
        (names[0], "done"),
        (names[1], "running"),
    ]
    assert [is_recorded(trial, RunFiles(tmp_path)) for trial in tiny_sweep.trials] == [
        True,
        False,
        False,
        False,
    ]
    first = tmp_path / tiny_sweep.trials[0].folder / "record.json"
    stamp = first.stat().st_mtime_ns
    assert run_grid(tiny_sweep, tmp_path) == {}
    assert steps == [4 * STEPS]  # no step was taken twice
    assert run_grid(tiny_sweep, tmp_path) == {}
    assert steps == [4 * STEPS]
    assert first.stat().st_mtime_ns == stamp
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    # No model, no checkpoint, no lock stays.
    assert files == sorted(["record.json", "trace.npz"] * 4 + ["planned.txt"])


def test_what_a_trial_leaves_behind(tiny_sweep: Plan, tmp_path: Path) -> None:
    trial = tiny_sweep.trials[1]
    assert run_trial(trial, tmp_path, keep_model=True) == "done"
    folder = tmp_path / trial.folder
    assert (folder / "run" / "model" / "model.safetensors").exists()
    record, trace = read_record(folder / "record.json"), Trace.load(folder / "trace.npz")
    assert record["config"]["cell"] == trial.to_dict()
    metrics = record["metrics"]
    assert metrics["exit_layers"] == [1, 2]
    assert metrics["train_examples"] == 48
    assert record["config"]["training"]["learning_rate"] == 1e-3
    assert len(metrics["temperatures"]) == 2
    assert set(metrics["areas"]) == {"fast", "slow", "whole"}
    assert trace.logits.dtype == np.float16
    assert trace.gates is not None
    right = (trace.predictions() == trace.require_labels()[:, None]).mean(axis=0)
    assert metrics["scores"] == pytest.approx(right.tolist())
    assert [row["exit_layer"] for row in record["tables"]["exits"]] == [1, 2]
    assert (folder / "record.json").stat().st_size < 6000
    assert (folder / "trace.npz").stat().st_size < 10_000
    (result,) = load_results(tmp_path)
    assert (result.method, result.strategy, result.seed) == ("lte", "joint", 0)
    assert result.logits_trace.logits.dtype == np.float32
    # The rule is what calibration data made it: the report's areas are the record's.
    assert isinstance(result.rule, Learned)
    assert len(result.rule.low) == len(result.rule.high) == 2
    assert all(0 < low < high < 1 for low, high in zip(result.rule.low, result.rule.high, strict=True))
    areas = area_statistic(result.trace, result.rule, metric=result.metric)
    again = dict(zip(areas.names, areas.exact().tolist(), strict=True))
    assert again == pytest.approx(metrics["areas"], abs=1e-6)


def test_seeds_choose_the_training_examples(
    tiny_sweep: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def train(model: Any, data: Any, **options: Any) -> Any:
        seen.append(list(data["train"]["text"]))
        raise ConfigError("seen enough")

    monkeypatch.setattr("offramp.training.run.train", train)
    assert set(run_grid(tiny_sweep, tmp_path).values()) == {"seen enough"}
    assert [len(set(rows)) > 40 for rows in seen] == [True] * 4
    assert seen[0] == seen[1]  # methods are paired by seed
    assert seen[2] == seen[3]
    assert seen[0] != seen[2]


def test_a_trial_that_fails_stops_no_other(tiny_sweep: Plan, tmp_path: Path) -> None:
    deep = replace(tiny_sweep.trials[0], exits=(1, 9), learning_rate=1e-2)
    sweep = replace(tiny_sweep, trials=(deep, tiny_sweep.trials[0]))
    statuses = {}
    failed = run_grid(
        sweep,
        tmp_path,
        on_status=lambda trial, status, reason: statuses.update({str(trial): (status, reason)}),
    )
    assert list(failed) == [str(deep)]
    assert "exit layers must lie in 1..4" in failed[str(deep)]
    assert statuses[str(deep)] == ("failed", failed[str(deep)])
    assert statuses[str(sweep.trials[1])] == ("done", "")


def test_a_trial_that_another_process_holds_is_left_to_it(tiny_sweep: Plan, tmp_path: Path) -> None:
    trial = tiny_sweep.trials[0]
    (tmp_path / trial.folder).mkdir(parents=True)
    with FileLock(tmp_path / trial.folder / LOCK):
        assert run_trial(trial, tmp_path) == "elsewhere"
    assert not is_recorded(trial, RunFiles(tmp_path))


def test_what_cannot_work_is_told_before_anything_runs(
    tiny_sweep: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = count_steps(monkeypatch)
    wrong = replace(tiny_sweep.trials[-1], method=replace(tiny_sweep.trials[-1].method, strategy="jiont"))
    with pytest.raises(ConfigError, match="Did you mean 'joint'"):
        run_grid(replace(tiny_sweep, trials=(*tiny_sweep.trials[:-1], wrong)), tmp_path)
    with pytest.raises(ConfigError, match="unknown engine 'cloud'"):
        run_grid(tiny_sweep, tmp_path, engine="cloud")
    assert steps == [0]
    run_trial(tiny_sweep.trials[0], tmp_path)
    other = replace(tiny_sweep.trials[0], training={"max_steps": 5})
    with pytest.raises(ConfigError, match=r"another trial \(.* there, .* here\): give another folder"):
        run_grid(replace(tiny_sweep, trials=(other,)), tmp_path)


def test_conflict_is_measured_at_shares_of_the_training(tiny_sweep: Plan, tmp_path: Path) -> None:
    trial = replace(tiny_sweep.trials[0], conflict=(0.0, 0.5, 1.0))
    assert run_trial(trial, tmp_path) == "done"
    products = read_gradients(tmp_path / trial.folder / GRADIENT_FILE)
    assert sorted(products) == [0, STEPS // 2, STEPS]
    assert all(moment.shape[1:] == (2, 2, 2) for moment in products.values())
    # The weights know nothing of it: same scores as without.
    plain = replace(trial, conflict=())
    run_trial(plain, tmp_path / "plain")
    measured, other = (
        read_record(tmp_path / at / trial.folder / FILE_NAME)["metrics"]["scores"] for at in (".", "plain")
    )
    assert measured == other
