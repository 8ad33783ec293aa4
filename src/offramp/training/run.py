"""Train a model with a strategy: one call, resumable and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from transformers import TrainerCallback

from offramp._core.arguments import seed_number, sequence
from offramp._core.errors import ConfigError, DataError, OfframpError
from offramp._core.files import write_failure
from offramp._core.paths import UserPath, user_path
from offramp._core.run_folder import RunFolder
from offramp._core.stopping import Stopped, StopRequest, handled, postponing
from offramp.data import TextData, fingerprint, fitting_labels, require_split, require_splits, row_hashes
from offramp.model import MultiExitForSequenceClassification, require_model
from offramp.model.base import SegmentedModel
from offramp.model.card import update_card
from offramp.model.cascade import MultiModelForSequenceClassification
from offramp.model.encoding import TextEncoder
from offramp.training.audit import refuse_shared_layers
from offramp.training.options import RECORD, Order, Precision, Tracker, TrainingOptions
from offramp.training.stages import stages_of, trainer_of
from offramp.training.strategies import STRATEGIES, Strategy, make_strategy, read_options, strategy_class
from offramp.training.trainer import (
    EncodedDataset,
    MultiExitTrainer,
    ProgressBar,
    SafeStop,
    last_checkpoint,
    noted_seconds,
)

DEFAULTS = TrainingOptions()


def untrained_model(
    strategy: str,
    backbone: str,
    exits: Sequence[int] | None,
    data: TextData,
    *,
    pooling: str | None = None,
    gates: bool = False,
    max_length: int | None = None,
    seed: int = 0,
) -> SegmentedModel:
    """An untrained model of the class that a strategy trains, for the labels and the task of some data.

    The other arguments and errors are those of `from_backbone`; an unknown strategy is a `ConfigError` before any
    download.
    """
    cls: type[SegmentedModel] = MultiExitForSequenceClassification
    if strategy_class(strategy).trains_alone:
        cls = MultiModelForSequenceClassification
    return cls.from_backbone(
        backbone,
        exits,
        labels=data.labels,
        kind=data.kind,
        pooling=pooling,
        gates=gates,
        max_length=max_length,
        seed=seed,
    )


def train(
    model: SegmentedModel,
    data: Mapping[str, Any],
    strategy: str = "sweet",
    *,
    seed: int = 0,
    output_dir: UserPath,
    progress: bool = True,
    epochs: float = DEFAULTS.epochs,
    max_steps: int = DEFAULTS.max_steps,
    batch_size: int = DEFAULTS.batch_size,
    learning_rate: float | None = DEFAULTS.learning_rate,
    warmup: float = DEFAULTS.warmup,
    weight_decay: float = DEFAULTS.weight_decay,
    max_grad_norm: float = DEFAULTS.max_grad_norm,
    order: Order = DEFAULTS.order,
    precision: Precision = DEFAULTS.precision,
    strategy_options: Mapping[str, Any] = MappingProxyType({}),
    report_to: Sequence[Tracker] | Tracker = DEFAULTS.report_to,
    callbacks: Sequence[TrainerCallback] = (),
) -> SegmentedModel:
    """Fine-tune a model in place and save it under `output_dir/model`.

    Repeat the call to resume a stopped run from its last checkpoint. A complete run is loaded, not repeated.
    The options from `epochs` to `report_to` are those of `TrainingOptions`.

    Args:
        model: a multi-exit model, or a cascade for a strategy that trains exits separately.
        data: splits by name; `train` is used.
        strategy: a key of `offramp.training.strategies.STRATEGIES`.
        seed: for data order, dropout and everything else that is random.
        output_dir: folder of the run.
        progress: show a progress bar.
        callbacks: of the library's trainer, called in every stage of the run (members of a cascade, phases of a
            strategy); they must not change weights, gradients or random numbers.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        ConfigError: a strategy that does not fit the model, or a folder that holds another run.
        DataError: a training split without labels, or with labels that do not fit the model.
        FolderInUseError: another process trains into the folder.
    """
    require_model(model)
    require_splits(data, "train")
    seed = seed_number(seed)
    callbacks = sequence("callbacks", callbacks, "the library's trainer callbacks")
    settings = TrainingOptions(
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        order=order,
        precision=precision,
        strategy_options=read_options(strategy, strategy_options),
        report_to=report_to,  # type: ignore[arg-type]  # checked, and made a tuple
    )
    method = make_strategy(strategy, **settings.strategy_options)
    _check_strategy(model, method)
    with model.without_layer_zero():
        refuse_shared_layers(model, method)
    path, own = user_path(output_dir, "output_dir"), ("model", "checkpoints")
    run = RunFolder(path, "run", mark="strategy", own=own, shared=True, record_file=RECORD)
    run.check_free()
    rows = data["train"]
    train_set, config = encoded(model, rows), _described(model, strategy, rows, settings)
    noted = {"seed": seed, **config}
    later = _unstored(noted)
    if not (run.recorded and run.check(noted, later=later)):
        with run.claim(noted, later=later):
            if not run.recorded:  # another process may just have finished it
                started = datetime.now(UTC)
                _mark(model, strategy, rows)
                seconds = _fit_stages(model, train_set, method, settings, seed, run.path, callbacks, progress)
                _finish(model, run, config, data, seed, started, seconds)
                return model
    model.adopt(type(model).from_pretrained(str(run.path / "model")))
    _mark(model, strategy, rows)
    return model.eval()


def _finish(
    model: SegmentedModel,
    run: RunFolder,
    config: dict[str, Any],
    data: Mapping[str, Any],
    seed: int,
    started: datetime,
    seconds: float,
) -> None:
    """Save a trained model and record its run; its checkpoints are then gone."""
    model.flops(np.array([8]))  # counted once and kept in the config
    metrics: dict[str, Any] = {"train_seconds": seconds, "train_examples": len(data["train"])}
    if isinstance(data, TextData):
        metrics["data"] = data.name
    with postponing():  # the newest checkpoint may be minutes old
        _save_whole(model, run.path / "model")
        run.record(command="train", config=config, metrics=metrics, seed=seed, started=started)
        update_card(run.path)
    shutil.rmtree(run.path / "checkpoints", ignore_errors=True)


def _save_whole(model: SegmentedModel, folder: Path) -> None:
    """Save a model whole or not at all; `OfframpError` if it cannot be written."""
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise write_failure(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _mark(model: SegmentedModel, strategy: str, rows: Any) -> None:
    """Put the facts of its training into a model."""
    model.config.strategy, model.policy = strategy, None  # a policy is for the weights it was tuned on
    model.config.pair = "text_pair" in rows.column_names
    model.trained_on = row_hashes(rows)


def _fit_stages(
    model: SegmentedModel,
    data: EncodedDataset,
    strategy: Strategy,
    options: TrainingOptions,
    seed: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    progress: bool,
) -> float:
    """Fit layer 0 and train the other exits, stage by stage. Return the seconds of training over all calls."""
    seconds = 0.0
    model.fit_linear(data.encodings, data.labels)
    with model.without_layer_zero():
        stages = stages_of(model, strategy)
        for stage in stages:
            checkpoints = folder / "checkpoints" / (stage.name or "all")
            trainer = trainer_of(stage, data, strategy, options, seed, checkpoints, model)
            if progress:
                trainer.add_callback(ProgressBar(f"{strategy.name} {stage.name}".strip()))
            for callback in callbacks:
                trainer.add_callback(callback)
            seconds += _fit(
                trainer, checkpoints, save_last=len(stages) > 1
            )  # a finished stage is not repeated
    model.eval()
    return seconds


def _described(model: SegmentedModel, strategy: str, rows: Any, settings: TrainingOptions) -> dict[str, Any]:
    """Everything that decides a run, except the seed."""
    return {
        "strategy": strategy,
        "backbone": model.config.backbone.model_type,
        "encoder": Path(model.config.backbone_config.get("_name_or_path") or "").name,
        "parameters": model.num_parameters(),
        "layers": model.config.backbone.num_hidden_layers,
        "exits": list(model.exit_layers),
        "pooling": model.config.pooling,
        "gates": model.gates,
        "kind": model.kind,
        "labels": list(model.labels),
        "max_length": model.max_length,
        "examples": len(rows),
        "data": fingerprint(rows),
        **{name: value for name, value in asdict(settings).items() if name != "report_to"},
    }


def _unstored(settings: Mapping[str, Any]) -> list[str]:
    """The settings that an older run may have had without storing them: an option only at its default."""
    defaults = asdict(DEFAULTS)
    return [name for name, value in settings.items() if value == defaults.get(name, value)]


def _check_strategy(model: SegmentedModel, strategy: Strategy) -> None:
    cascade = isinstance(model, MultiModelForSequenceClassification)
    if strategy.trains_alone and not cascade:
        raise ConfigError(
            f"strategy {strategy.name!r} trains separate classifiers: make the model with "
            "MultiModelForSequenceClassification.from_backbone"
        )
    if cascade and not strategy.trains_alone:
        separate = " or ".join(repr(name) for name, other in STRATEGIES.items() if other.trains_alone)
        raise ConfigError(f"a Multi-Model cascade is trained with strategy {separate}, not {strategy.name!r}")


def encoded(model: SegmentedModel, dataset: Any) -> EncodedDataset:
    """The labelled texts of a split as token ids; `DataError` if they do not fit the model."""
    dataset = require_split(dataset)
    if not len(dataset):
        raise DataError("the training split is empty")
    if "label" not in dataset.column_names:
        raise DataError(f"the training split has no column 'label', only {dataset.column_names}")
    labels = fitting_labels(dataset, model.labels, model.kind, pair=model.pair)
    assert labels is not None
    return EncodedDataset(TextEncoder.of(model).dataset(dataset)[0], labels.tolist())


def _fit(trainer: MultiExitTrainer, folder: Path, *, save_last: bool) -> float:
    """Train, from the last checkpoint if any. Return the seconds over all calls."""
    checkpoint, request = last_checkpoint(folder), StopRequest()
    stop = SafeStop(request, save_last=save_last, before=noted_seconds(checkpoint))
    trainer.add_callback(stop)
    try:
        with handled(request.note):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Exception as error:  # each file of a checkpoint has its own library and error types
        if checkpoint is None or stop.began or isinstance(error, OfframpError):
            raise
        raise ConfigError(
            f"cannot resume from {checkpoint} ({type(error).__name__}: {error}): it is damaged; delete it to resume "
            "from an earlier checkpoint or start again"
        ) from error
    if request.number:
        raise Stopped(request.number, f"stopped; the checkpoint is in {folder}: run the same again to resume")
    return stop.spent
