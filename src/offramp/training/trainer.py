"""The library's trainer, which runs the steps of a strategy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from traceback import extract_tb
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from offramp._core.errors import ConfigError, OfframpError
from offramp._core.files import write_failure
from offramp._core.progress import Update, progress
from offramp._core.records import write_text
from offramp._core.stopping import StopRequest
from offramp.engine.batching import pad
from offramp.training.options import Order
from offramp.training.strategies import Moment, Strategy

Arguments: TypeAlias = TrainingArguments

CHECKPOINT_SECONDS = 120.0
SECONDS = "seconds.json"  # in a checkpoint: the seconds of training up to it
# If one of these is missing, the library makes a new one.
RESUMED = (OPTIMIZER_NAME, SCHEDULER_NAME, "rng_state.pth")


class EncodedDataset(Dataset[dict[str, Any]]):
    """Token ids and labels in memory, shared by all members of a cascade."""

    def __init__(self, encodings: Sequence[dict[str, list[int]]], labels: Sequence[int | float]) -> None:
        self.encodings, self.labels = encodings, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.encodings[row], "labels": self.labels[row]}


def collate(pad_values: Mapping[str, int], rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rows as one batch, padded on the right, as when the model runs."""
    inputs = [{name: value for name, value in row.items() if name != "labels"} for row in rows]
    batch = {name: torch.from_numpy(values) for name, values in pad(inputs, pad_values).items()}
    return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}


class EpochSampler(LengthGroupedSampler):
    """Batches in an order that depends only on seed and epoch, so a resumed run has the same batches.

    Args:
        batch_size: examples that are grouped by length.
        lengths: of the examples, in tokens.
        order: `length` groups examples of similar length; `random` does not.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int, order: Order = "length") -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.order = seed, order
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer's data loader at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Any:
        self.generator.manual_seed(self.seed * 100_003 + self.epoch)
        if self.order == "random":
            return iter(torch.randperm(len(self.lengths), generator=self.generator).tolist())
        return super().__iter__()


class MultiExitTrainer(Trainer):
    """`transformers.Trainer` whose forward and backward passes are a strategy's step.

    Args:
        strategy: which losses reach which parameters.
        phase: index of the strategy's phase that this trainer runs.
        order: of the examples, as in `EpochSampler`.
        *args, **kwargs: those of `transformers.Trainer`.
    """

    def __init__(
        self, *args: Any, strategy: Strategy, phase: int = 0, order: Order = "length", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.strategy, self.phase, self.order = strategy, phase, order
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            # Data parallelism expects one backward pass in a step; a strategy may run several.
            raise ConfigError(
                "one run trains on one device: start a run for each device, or set CUDA_VISIBLE_DEVICES"
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, as the library does; `ConfigError` for a tracker that cannot be reported to."""
        try:
            return super().train(*args, **kwargs)
        except Exception as error:  # each tracker has its own types
            if self.args.report_to and from_tracker(error):
                raise ConfigError(
                    f"cannot report to {' or '.join(self.args.report_to)} ({type(error).__name__}: {error}): check the "
                    "tracker's settings, or leave report_to out; the same call then resumes from the last checkpoint"
                ) from error
            raise

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """One strategy step on one batch; gradients are averaged over accumulated batches."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        scale = self.current_gradient_accumulation_steps

        def backward(loss: Tensor) -> None:
            self.accelerator.backward(loss / scale)

        moment = Moment(self.state.global_step, self.phase, self.args.seed, self.state.max_steps)
        with self.accelerator.autocast():
            loss = self.strategy.step(self.accelerator.unwrap_model(model), inputs, labels, backward, moment)
        return loss / scale

    def _clip_grad_norm(self, model: torch.nn.Module) -> Tensor:
        """Clip each of the strategy's groups by its own norm. Return the norm of all of them before."""
        groups = self.strategy.clip_groups(self.accelerator.unwrap_model(model))
        norms = [self.accelerator.clip_grad_norm_(group, self.args.max_grad_norm) for group in groups]
        return torch.linalg.vector_norm(torch.stack(norms))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError) as error:  # torch's own type for errors of the disk
            raise OfframpError(
                f"{write_failure(Path(str(self.args.output_dir)), error)}; the same command then resumes from the "
                "earlier checkpoint"
            ) from error

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        lengths = [len(encoding["input_ids"]) for encoding in dataset.encodings]
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return EpochSampler(batch, lengths, self.args.seed, self.order)


def from_tracker(error: Exception) -> bool:
    """Whether an error comes out of the library's callbacks that report to trackers."""
    return any(frame.filename == integration_utils.__file__ for frame in extract_tb(error.__traceback__))


class SafeStop(TrainerCallback):
    """Saves a checkpoint every few minutes, when a signal ends the process, and optionally at the end.

    Args:
        request: where Ctrl-C, SIGTERM and SIGHUP are noted.
        every: seconds between checkpoints.
        before: seconds of training in earlier calls, up to the checkpoint.
    """

    def __init__(
        self,
        request: StopRequest,
        every: float = CHECKPOINT_SECONDS,
        *,
        save_last: bool = False,
        before: float = 0.0,
    ) -> None:
        self.request, self.every, self.save_last, self.before = request, every, save_last, before
        self.began = False
        self.started = self.saved = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds of training, including earlier calls."""
        return self.before + time.monotonic() - self.started

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.started = self.saved = time.monotonic()

    def on_step_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.began = True  # the checkpoint has been read completely

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        last = self.save_last and state.global_step >= state.max_steps
        if self.request.number or last or time.monotonic() - self.saved > self.every:
            control.should_save = True
            self.saved = time.monotonic()
        if self.request.number:
            control.should_training_stop = True

    def on_save(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        checkpoint = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        write_text(checkpoint / SECONDS, f"{json.dumps(self.spent)}\n")


class ProgressBar(TrainerCallback):
    """Steps, loss and time left."""

    def __init__(self, title: str) -> None:
        self.title, self.loss = title, ""
        self.display = ExitStack()
        self.update: Update

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.update = self.display.enter_context(progress(self.title, state.max_steps))
        self.update(state.global_step, state.max_steps, "")

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.update(state.global_step, state.max_steps, self.loss)

    def on_log(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" in (kwargs.get("logs") or {}):
            self.loss = f"loss {kwargs['logs']['loss']:.3f}"

    def on_train_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.display.close()


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, whose last file is the trainer's state; `ConfigError` if it has lost a file."""
    whole = [state.parent for state in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")]
    newest = max(whole, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)
    if newest and (lost := [name for name in RESUMED if not (newest / name).exists()]):
        raise ConfigError(
            f"cannot resume from {newest}, which lacks {', '.join(lost)}: delete it to resume from an earlier "
            "checkpoint or start again"
        )
    return newest


def noted_seconds(checkpoint: Path | None) -> float:
    """Seconds of training up to a checkpoint; 0 if unknown."""
    if checkpoint is not None:
        with suppress(OSError, ValueError):
            return float(json.loads((checkpoint / SECONDS).read_text(encoding="utf-8")))
    return 0.0
