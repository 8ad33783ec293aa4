"""The stages of a run: members of a cascade, or phases of a strategy, and the trainer of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from offramp.model.base import SegmentedModel
from offramp.model.cascade import MultiModelForSequenceClassification
from offramp.model.encoding import TextEncoder
from offramp.training.options import TrainingOptions, default_learning_rate, uses_bf16
from offramp.training.strategies import ONE_PHASE, Phase, Strategy, make_strategy
from offramp.training.trainer import EncodedDataset, MultiExitTrainer, collate


@dataclass(frozen=True)
class Stage:
    """A member of a cascade, or a phase: it has its own optimizer and schedule."""

    name: str
    model: SegmentedModel
    seed_offset: int = 0
    index: int = 0
    phase: Phase = ONE_PHASE


def stages_of(model: SegmentedModel, strategy: Strategy) -> list[Stage]:
    """The stages of a run, in order."""
    if isinstance(model, MultiModelForSequenceClassification):
        return [Stage(f"exit-{depth}", model.member(k), k) for k, depth in enumerate(model.exit_layers)]
    # Each phase has its own order of batches, for every seed.
    return [Stage(phase.name, model, 7919 * i, i, phase) for i, phase in enumerate(strategy.phases)]


def training_steps(strategy: str, options: TrainingOptions, examples: int) -> int:
    """Optimizer steps of a run over all phases of its strategy; of a cascade, those of one member."""
    phases = make_strategy(strategy, **options.strategy_options).phases
    return sum(_shortened(options, phase.share).steps(examples) for phase in phases)


def _shortened(options: TrainingOptions, share: float) -> TrainingOptions:
    """The options of a phase that takes a share of the epochs or steps."""
    return replace(options, epochs=options.epochs * share, max_steps=math.ceil(options.max_steps * share))


def trainer_of(
    stage: Stage,
    data: EncodedDataset,
    strategy: Strategy,
    options: TrainingOptions,
    seed: int,
    folder: Path,
    whole: SegmentedModel,
) -> MultiExitTrainer:
    """The trainer of one stage of a run."""
    options = _shortened(options, stage.phase.share)
    trainer = MultiExitTrainer(
        model=stage.model,
        args=arguments(options, seed + stage.seed_offset, folder, stage.model),
        train_dataset=data,
        data_collator=partial(collate, TextEncoder.of(whole).pad_values),
        strategy=strategy,
        phase=stage.index,
        order=options.order,
    )
    trainer.remove_callback(PrinterCallback)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder.parents[1] / "logs" / folder.name)  # checkpoints are deleted
    return trainer


def arguments(options: TrainingOptions, seed: int, folder: Path, model: SegmentedModel) -> TrainingArguments:
    """Our options as the arguments of the library's trainer."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate or default_learning_rate(model.config.backbone.hidden_size),
        lr_scheduler_type="linear",
        warmup_steps=min(options.warmup, 1 - 1e-9),  # 1 or more would be a number of steps
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=uses_bf16(options.precision),
        use_cpu=not torch.accelerator.is_available(),
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=10**9,  # SafeStop saves by the clock
        save_total_limit=1,
        logging_steps=20,
        report_to=list(options.report_to),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
