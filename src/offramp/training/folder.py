"""What lies in the folder of a training run: the model, whole or not at all, and the checkpoint to resume from."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from offramp._core.errors import ConfigError
from offramp._core.records import write_text
from offramp.model.base import SegmentedModel

# Where one of these is missing, the library makes a fresh one.
RESUMED = (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state.pth")
SECONDS = "seconds.json"


def save_model(model: SegmentedModel, folder: Path) -> None:
    """Save the model whole or not at all."""
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    shutil.rmtree(folder / "model", ignore_errors=True)
    partial.rename(folder / "model")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; the trainer's state is the last file of a checkpoint.

    Raises:
        ConfigError: the checkpoint has lost a file since.
    """
    whole = [state.parent for state in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")]
    newest = max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)
    if newest and (lost := [name for name in RESUMED if not (newest / name).exists()]):
        raise ConfigError(
            f"cannot resume from {newest}, which lacks {', '.join(lost)}: delete it, and the run resumes from an "
            "earlier checkpoint or starts again"
        )
    return newest


def note_seconds(checkpoint: Path, seconds: float) -> None:
    """Store how long the training up to a checkpoint took."""
    write_text(checkpoint / SECONDS, f"{json.dumps(seconds)}\n")


def noted_seconds(checkpoint: Path | None) -> float:
    """How long the training up to a checkpoint took; 0 where this is not known."""
    if checkpoint is not None:
        with suppress(OSError, ValueError):
            return float(json.loads((checkpoint / SECONDS).read_text(encoding="utf-8")))
    return 0.0
