"""Reports of a training to a tracker: off by default, by the library's callbacks, and no part of the run's settings."""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp._core.errors import ConfigError
from offramp.training import options as training_options
from offramp.training.options import TrainingOptions
from offramp.training.run import train
from offramp.training.stages import arguments
from offramp.training.trainer import MultiExitTrainer
from tests.training.test_run import fresh

STEPS: dict[str, Any] = {"max_steps": 20, "batch_size": 8, "progress": False}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that seem to be installed; a test adds to them."""
    names: set[str] = set()

    def find_spec(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name in names else None

    monkeypatch.setattr(training_options, "find_spec", find_spec)
    return names


def test_a_tracker_that_is_not_installed_gives_the_line_that_installs_it(installed: set[str]) -> None:
    for name in ("tensorboard", "mlflow", "wandb"):
        with pytest.raises(ConfigError, match=f"report_to {name} needs its package.*: pip install {name}$"):
            TrainingOptions(report_to=(name,))
    with pytest.raises(
        ConfigError, match="unknown tracker of report_to 'tensorbord'. Did you mean 'tensorboard'?"
    ):
        TrainingOptions(report_to=("tensorbord",))  # type: ignore[arg-type]


def test_the_names_reach_the_trainer(installed: set[str], tiny_encoder: Path, tmp_path: Path) -> None:
    installed |= {"mlflow", "wandb"}
    model = fresh(tiny_encoder, "joint")
    for given, reported in (((), []), ("wandb", ["wandb"]), (["mlflow", "wandb"], ["mlflow", "wandb"])):
        options = TrainingOptions(report_to=given)  # type: ignore[arg-type]
        assert arguments(options, 0, tmp_path, model).report_to == reported


def test_tensorboard_files_hold_the_loss_of_each_stage_and_change_nothing(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    runs = {}
    for name, report_to in (("with", "tensorboard"), ("without", ())):
        model = fresh(tiny_encoder, "multi_model")
        options: dict[str, Any] = {"output_dir": tmp_path / name, "report_to": report_to}
        runs[name] = train(model, tiny_data, "multi_model", **options, **STEPS)
    weights = runs["with"].state_dict()
    assert all(torch.equal(weights[name], value) for name, value in runs["without"].state_dict().items())
    settings = [json.loads((tmp_path / name / "settings.json").read_text()) for name in runs]
    assert settings[0] == settings[1]

    assert not (tmp_path / "without" / "logs").exists()
    folders = sorted((tmp_path / "with" / "logs").iterdir())
    assert [path.name for path in folders] == ["exit-1", "exit-2", "exit-4"]
    for folder in folders:
        events = EventAccumulator(str(folder)).Reload()
        assert {"train/loss", "train/learning_rate"} <= set(events.Tags()["scalars"])
        assert [event.step for event in events.Scalars("train/loss")] == [20]


def test_a_tracker_that_fails_is_named(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file"))
    model = fresh(tiny_encoder, "joint")
    with pytest.raises(
        ConfigError, match=r"cannot report to tensorboard \(.*leave report_to out; the same call"
    ):
        train(model, tiny_data, "joint", output_dir=tmp_path / "run", report_to="tensorboard", **STEPS)
    monkeypatch.setattr(MultiExitTrainer, "training_step", broken_step)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    with pytest.raises(ZeroDivisionError):  # no fault of the tracker's
        train(model, tiny_data, "joint", output_dir=tmp_path / "other", report_to="tensorboard", **STEPS)


def broken_step(*_: object, **__: object) -> None:
    raise ZeroDivisionError
