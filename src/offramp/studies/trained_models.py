"""Models that a sweep trained and kept; an attack study attacks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offramp._core.errors import ConfigError
from offramp._core.paths import UserPath, user_path
from offramp._core.run_files import RunFiles
from offramp.studies.grid import short
from offramp.studies.training.results import sweep_records
from offramp.studies.training.trial import RUN

MODEL = "model"  # below a trial's run


@dataclass(frozen=True)
class Trained:
    """One model of a sweep.

    Attributes:
        sweep: folder of the sweep.
        folder: of the trial below it.
        backbone, task, method, strategy, train_size, learning_rate, seed: of the trial.
        gates: whether it has learned gates.
    """

    sweep: Path
    folder: str
    backbone: str
    task: str
    method: str
    strategy: str
    train_size: int | None
    learning_rate: float | None
    seed: int
    gates: bool

    @property
    def model(self) -> Path:
        return self.sweep / self.folder / RUN / MODEL

    @property
    def kept(self) -> bool:
        return (self.model / "config.json").exists()


def trained_models(sweep: UserPath) -> list[Trained]:
    """The models that a sweep has recorded, kept or not.

    Raises:
        ConfigError: no such folder, or one without trials of a sweep.
    """
    root = user_path(sweep, "the sweep")
    records = sweep_records(RunFiles(root)) if root.is_dir() else []
    if not records:
        raise ConfigError(
            f"no trained models below {root}: run its config with 'offramp sweep … --keep-models' first"
        )
    models = []
    for record in records:
        trial, folder = record["config"]["cell"], Path(record["path"]).parent.as_posix()
        method, gates = trial["method"], bool(trial["method"].get("gates"))
        same = {key: trial[key] for key in ("backbone", "task", "train_size", "learning_rate", "seed")}
        models.append(
            Trained(root, folder, method=method["name"], strategy=method["strategy"], gates=gates, **same)
        )
    return models


def choose(models: Sequence[Trained], backbone: str, task: str, method: str, seed: int) -> Trained:
    """The model with this backbone, task, method and seed; if no method has that name, a strategy may.

    Raises:
        ConfigError: no such model, several of them, or one that was not kept.
    """
    setting = (short(backbone), short(task), seed)
    candidates = [model for model in models if (model.backbone, model.task, model.seed) == setting]
    matches = [model for model in candidates if model.method == method]
    matches = matches or [model for model in candidates if model.strategy == method]
    wanted, sweep = f"{short(backbone)}, {short(task)}, {method}, seed {seed}", models[0].sweep
    if not matches:
        names = ", ".join(sorted({f"{m.task}/{m.method}/seed{m.seed}" for m in models})[:8])
        raise ConfigError(f"no model of {wanted} in {sweep}: it has {names}, …; train it, or leave it out")
    if len(matches) > 1:
        folders = ", ".join(model.folder for model in matches[:3])
        raise ConfigError(
            f"several models of {wanted} in {sweep} ({folders}): say which by 'train_size' or 'learning_rate'"
        )
    if not matches[0].kept:
        raise ConfigError(
            f"{sweep / matches[0].folder} has a record but no model: train it with 'offramp sweep … --keep-models'"
        )
    return matches[0]
