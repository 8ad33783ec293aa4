"""Models that a sweep has trained and kept: what an attack study attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offramp._core.errors import ConfigError
from offramp.studies.names import short
from offramp.studies.training.results import sweep_records
from offramp.studies.training.trial import RUN

MODEL = "model"  # below a cell's run


@dataclass(frozen=True)
class Trained:
    """One model of a sweep.

    Attributes:
        sweep: folder of the sweep.
        folder: of the cell below it.
        backbone, task, method, strategy, train_size, learning_rate, seed: of the cell.
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
        """Where the model lies."""
        return self.sweep / self.folder / RUN / MODEL

    @property
    def kept(self) -> bool:
        """Whether the model is there."""
        return (self.model / "config.json").exists()


def trained_models(sweep: str | Path) -> list[Trained]:
    """The models that a sweep has recorded, kept or not.

    Raises:
        ConfigError: no such folder, or one without cells of a sweep.
    """
    root = Path(sweep)
    found = sweep_records(root) if root.is_dir() else []
    if not found:
        raise ConfigError(
            f"no trained models below {sweep}: run its config with 'offramp sweep … --keep-models' first"
        )
    return [_trained(root, record["path"], record["config"]["cell"]) for record in found]


def _trained(root: Path, path: str, cell: dict[str, object]) -> Trained:
    method = cell["method"]
    assert isinstance(method, dict)
    names = ("backbone", "task", "train_size", "learning_rate", "seed")
    return Trained(
        sweep=root,
        folder=Path(path).parent.as_posix(),
        method=method["name"],
        strategy=method["strategy"],
        gates=bool(method.get("gates")),
        **{name: cell[name] for name in names},  # type: ignore[arg-type]
    )


def choose(models: Sequence[Trained], backbone: str, task: str, method: str, seed: int) -> Trained:
    """The one model of that place; where none has the method's name, one that was trained by a strategy of it.

    Raises:
        ConfigError: no such model, several of them, or one that was not kept.
    """
    here = [m for m in models if (m.backbone, m.task, m.seed) == (short(backbone), short(task), seed)]
    named = [m for m in here if m.method == method] or [m for m in here if m.strategy == method]
    where = f"{short(backbone)}, {short(task)}, {method}, seed {seed}"
    if not named:
        have = ", ".join(sorted({f"{m.task}/{m.method}/seed{m.seed}" for m in models})[:8])
        raise ConfigError(
            f"no model of {where} in {models[0].sweep}: it has {have}, …; train it, or leave it out"
        )
    if len(named) > 1:
        folders = ", ".join(m.folder for m in named[:3])
        raise ConfigError(
            f"several models of {where} in {models[0].sweep} ({folders}): say which by 'train_size' or "
            "'learning_rate'"
        )
    if not named[0].kept:
        raise ConfigError(
            f"{named[0].sweep / named[0].folder} has a record but no model: train it with 'offramp sweep … "
            "--keep-models'"
        )
    return named[0]
