"""The folder of a run: what it is for, the model whole or not at all, the checkpoint to go on from."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from offramp._core.errors import ConfigError
from offramp._core.records import write_text
from offramp.model.base import SegmentedModel

# Without one of these the library goes on with a fresh one.
RESUMED = (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state.pth")
SECONDS = "seconds.json"


def check_run_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note what the folder is for, or raise `ConfigError` where it already is for something else."""
    path = folder / "settings.json"
    if not path.exists():
        if foreign := [name for name in ("model", "checkpoints") if (folder / name).exists()]:
            raise ConfigError(
                f"{folder} holds a folder {foreign[0]!r} that no run wrote, and that a run would replace: choose "
                "another output folder"
            )
        write_text(path, json.dumps(settings, indent=2) + "\n")
    settings = json.loads(json.dumps(settings))
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}): delete the folder or choose another one"
        ) from error
    # A run that an earlier version began has noted less.
    changed = sorted(key for key in stored if key in settings and stored[key] != settings[key])
    if changed:
        raise ConfigError(
            f"{folder} holds a run with another {changed[0]} ({stored[changed[0]]!r}, asked for "
            f"{settings[changed[0]]!r}): choose another output folder, or delete that one"
        )


def save_model(model: SegmentedModel, folder: Path) -> None:
    """Save the model whole or not at all."""
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    shutil.rmtree(folder / "model", ignore_errors=True)
    partial.rename(folder / "model")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; one whose writing was cut short lacks the trainer's state, its last file.

    Raises:
        ConfigError: it has lost a file since.
    """
    whole = [state.parent for state in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")]
    newest = max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)
    if newest and (lost := [name for name in RESUMED if not (newest / name).exists()]):
        raise ConfigError(
            f"cannot go on from {newest}, which lacks {', '.join(lost)}: delete it, and the run goes on from an "
            "earlier checkpoint or starts again"
        )
    return newest


def note_seconds(checkpoint: Path, seconds: float) -> None:
    """Note how long the training up to a checkpoint took."""
    write_text(checkpoint / SECONDS, f"{json.dumps(seconds)}\n")


def noted_seconds(checkpoint: Path | None) -> float:
    """How long the training up to a checkpoint took; 0 without one, or where no whole note of it is left."""
    if checkpoint is not None:
        with suppress(OSError, ValueError):
            return float(json.loads((checkpoint / SECONDS).read_text(encoding="utf-8")))
    return 0.0
