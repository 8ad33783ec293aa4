"""The cost of a training step: every strategy against plain fine-tuning with the library's own trainer."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import SaveStrategy

from offramp._core import progress as display
from offramp._core.errors import ConfigError
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder
from offramp.training.options import Order, TrainingOptions, uses_bf16
from offramp.training.run import encoded
from offramp.training.stages import Stage, arguments, stages_of, trainer_of
from offramp.training.strategies import Strategy, make_strategy
from offramp.training.trainer import EncodedDataset, MultiExitTrainer, collate

PLAIN = "one exit, transformers.Trainer"
WARM_UP = 2  # uncounted steps at the start of a round
MIB = 2**20

Round = Callable[[], float]  # trains some steps, returns the median seconds of one


@dataclass(frozen=True)
class StepCost:
    """The cost of one way of training.

    Attributes:
        name: the strategy, or `PLAIN`.
        seconds: of a step, median over rounds of the median over steps; of a cascade, of all members together.
        lowest: of the rounds.
        highest: of the rounds.
        examples_per_second: batch size over `seconds`.
        times_plain: `seconds` over that of `PLAIN`: median over the rounds, each of which has both.
        activation_mib: peak of what autograd holds for the backward pass, on the longest batch; of a cascade, of
            its largest member.
    """

    name: str
    seconds: float
    lowest: float
    highest: float
    examples_per_second: float
    times_plain: float
    activation_mib: float


def bench_training(
    models: dict[str, SegmentedModel],
    data: Any,
    options: TrainingOptions,
    *,
    steps: int = 50,
    rounds: int = 3,
    seed: int = 0,
    progress: bool = False,
) -> list[StepCost]:
    """Time training steps of some strategies and of plain fine-tuning, in turns, on the same batches.

    Plain fine-tuning is `transformers.Trainer` on the same encoder to full depth with the library's own classifier.

    Args:
        models: untrained models by strategy; they are trained a little.
        data: labelled training split, with columns `text` and for pairs `text_pair`.
        options: batch size, precision and so on, for all.
        steps: of each way in each round; 50 batches hold texts of every length.
        rounds: number of rounds, in each of which all ways take a turn.
        seed: for the order of the data.
        progress: show progress bars.

    Returns:
        One entry for each way, plain fine-tuning first.

    Raises:
        ConfigError: no model, or too few steps, rounds or examples.
    """
    if not models or rounds < 1 or steps <= WARM_UP + 1:
        raise ConfigError(
            f"expected a strategy, at least one round and {WARM_UP + 2} steps, got {len(models)}, {rounds}, {steps}"
        )
    if len(data) < options.batch_size * (WARM_UP + 2):
        raise ConfigError(
            f"expected at least {WARM_UP + 2} batches of {options.batch_size} examples, got {len(data)} examples"
        )
    whole = next(iter(models.values()))
    rows = encoded(whole, data)
    limited = replace(options, max_steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Round] = {PLAIN: _plain(whole, rows, limited, seed, Path(folder))}
        for name, model in models.items():
            ways[name] = _strategy(name, model, rows, limited, seed, Path(folder))
        names = [*ways]
        times: dict[str, list[float]] = {name: [] for name in names}
        # Each round starts with the next way.
        turns = [names[(turn + k) % len(names)] for turn in range(rounds) for k in range(len(names))]
        with display.progress("time training steps", len(turns), show=progress, timed=True) as update:
            for done, name in enumerate(turns):
                update(done, None, name)
                times[name].append(ways[name]())
    batch = _longest(whole, rows, options.batch_size)
    plain = _plain_model(whole).to(whole.device).train()
    with _autocast(whole, options):
        memory = {PLAIN: peak_held_bytes(plain.parameters(), lambda: plain(**batch).loss.backward())}
    for name, model in display.track([*models.items()], "measure memory", show=progress):
        with _autocast(model, options):
            memory[name] = _memory(name, model, batch, options)
    return [_cost(name, times, options.batch_size, memory[name]) for name in ways]


def _cost(name: str, times: dict[str, list[float]], batch_size: int, held: int) -> StepCost:
    mine = times[name]
    ratios = [own / plain for own, plain in zip(mine, times[PLAIN], strict=True)]
    return StepCost(
        name,
        seconds=statistics.median(mine),
        lowest=min(mine),
        highest=max(mine),
        examples_per_second=batch_size / statistics.median(mine),
        times_plain=statistics.median(ratios),
        activation_mib=held / MIB,
    )


class StepClock(TrainerCallback):
    """The end time of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Median time from the end of a step to the end of the next, loading of data included."""
        return statistics.median(after - before for before, after in pairwise(self.ends[WARM_UP - 1 :]))


def _timed(trainer: Trainer) -> float:
    clock = StepClock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.seconds


def _strategy(
    name: str, model: SegmentedModel, rows: EncodedDataset, options: TrainingOptions, seed: int, folder: Path
) -> Round:
    """A round of a strategy: a few steps of each of its stages; of phases, the slowest counts."""
    strategy = make_strategy(name, **options.strategy_options)
    stages = stages_of(model, strategy)

    def seconds(stage: Stage) -> float:
        return _timed(trainer_of(stage, rows, strategy, options, seed, folder, model))

    if strategy.trains_alone:
        return lambda: sum(seconds(stage) for stage in stages)
    return lambda: max(seconds(stage) for stage in stages)


class _PlainTrainer(Trainer):
    """The library's trainer, with our order of the data: the same batches for all."""

    order: Order = "length"
    _get_train_sampler = MultiExitTrainer._get_train_sampler


def _plain_model(whole: SegmentedModel) -> Any:
    """The library's classifier for the same encoder and task, its weights random: they do not change the time."""
    config = type(whole.config.backbone).from_dict(whole.config.backbone.to_dict())
    regression = whole.kind == "regression"
    config.num_labels = 1 if regression else len(whole.labels)
    config.problem_type = "regression" if regression else "single_label_classification"
    return AutoModelForSequenceClassification.from_config(config)


def _plain(
    whole: SegmentedModel, rows: EncodedDataset, options: TrainingOptions, seed: int, folder: Path
) -> Round:
    model, settings = _plain_model(whole), arguments(options, seed, folder, whole)
    settings.save_strategy = SaveStrategy.NO

    def seconds() -> float:
        trainer = _PlainTrainer(
            model=model,
            args=settings,
            train_dataset=rows,
            data_collator=partial(collate, TextEncoder.of(whole).pad_values),
        )
        trainer.remove_callback(PrinterCallback)
        return _timed(trainer)

    return seconds


def _longest(whole: SegmentedModel, rows: EncodedDataset, batch_size: int) -> dict[str, Any]:
    """The batch with the longest examples, padded."""
    order = sorted(range(len(rows)), key=lambda row: len(rows.encodings[row]["input_ids"]))
    chosen = [rows[row] for row in order[-batch_size:]]
    batch = collate(TextEncoder.of(whole).pad_values, chosen)
    return {k: v.to(whole.device) for k, v in batch.items()}


def _memory(name: str, model: SegmentedModel, batch: dict[str, Any], options: TrainingOptions) -> int:
    strategy = make_strategy(name, **options.strategy_options)
    inputs, labels = {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
    return max(
        peak_activation_bytes(stage.model, strategy, inputs, labels) for stage in stages_of(model, strategy)
    )


def _autocast(model: SegmentedModel, options: TrainingOptions) -> Any:
    return torch.autocast(model.device.type, torch.bfloat16, enabled=uses_bf16(options.precision))


class _Ledger:
    """Bytes of distinct storages that autograd keeps alive: now, and the peak."""

    def __init__(self, ignored: set[int]) -> None:
        self.ignored = ignored
        self.held: dict[int, int] = {}
        self.now = self.peak = 0


class _Kept:
    """A saved tensor; the ledger is updated when autograd releases it."""

    def __init__(self, ledger: _Ledger, tensor: Tensor) -> None:
        self.ledger, self.tensor = ledger, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        if self.key in ledger.ignored:
            return
        ledger.held[self.key] = ledger.held.get(self.key, 0) + 1
        if ledger.held[self.key] == 1:
            ledger.now += self.size
            ledger.peak = max(ledger.peak, ledger.now)

    def __del__(self) -> None:
        if self.key in self.ledger.ignored:
            return
        self.ledger.held[self.key] -= 1
        if not self.ledger.held[self.key]:
            del self.ledger.held[self.key]
            self.ledger.now -= self.size


def peak_activation_bytes(
    model: SegmentedModel, strategy: Strategy, inputs: dict[str, Tensor], labels: Tensor
) -> int:
    """Peak bytes of activations that autograd holds during one training step, parameters not counted.

    Args:
        model: left with no gradients.
        strategy: of the step.
        inputs: `input_ids`, `attention_mask`, … `(batch, length)`.
        labels: `(batch,)`.
    """
    model.train()

    def step() -> None:
        strategy.step(model, inputs, labels, lambda loss: loss.backward())

    try:
        return peak_held_bytes(model.parameters(), step)
    finally:
        model.zero_grad(set_to_none=True)


def peak_held_bytes(parameters: Iterable[Tensor], step: Callable[[], object]) -> int:
    """Peak bytes that autograd holds while `step` runs forward and backward; the parameters are not counted."""
    ledger = _Ledger({p.untyped_storage().data_ptr() for p in parameters})
    with torch.autograd.graph.saved_tensors_hooks(partial(_Kept, ledger), attrgetter("tensor")):
        step()
    return ledger.peak
