"""What a cell of a sweep does: train, calibrate, trace and record one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.files import atomic_write
from offramp._core.records import read_record, write_record
from offramp._core.to_json import to_json
from offramp._core.trace import Trace
from offramp.calibration.thresholds import prepare
from offramp.criteria import Criterion, make_criterion
from offramp.evaluation.areas import RANGES, area
from offramp.evaluation.arrow_tables import table
from offramp.evaluation.curves import speed_accuracy
from offramp.evaluation.operating_points import cost_statistic, static_exits
from offramp.metrics import score
from offramp.studies.training.plan import RUN, TrainingTrial

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from offramp.model.base import SegmentedModel
    from offramp.studies.grid import Load

TRACE = "trace.npz"


def run_training_trial(cell: TrainingTrial, output: Path, load: Load) -> None:
    """Train, calibrate, trace and record one cell; one whose process died goes on from its last checkpoint.

    Args:
        cell: what to run.
        output: folder of the sweep.
        load: gives the data of a task.
    """
    from offramp.inference.tracing import trace
    from offramp.training.run import train, untrained_model

    started = datetime.now(UTC)
    data = load(cell.task)
    if cell.train_size is not None:
        data = data.subsample(cell.train_size, cell.seed)
    model = untrained_model(
        cell.method.strategy,
        cell.backbone,
        cell.exits,
        data,
        pooling=cell.pooling,
        gates=cell.method.gates,
        max_length=cell.max_length,
        seed=cell.seed,
    )
    rule = make_criterion(cell.rule)
    rule.check(len(model.exit_layers), model.kind, model.gates)
    model = train(
        model,
        data,
        strategy=cell.method.strategy,
        seed=cell.seed,
        output_dir=output / cell.folder / RUN,
        **vars(cell.options),
        callbacks=_conflict_watch(cell, model, data["train"], output),
        progress=False,
    )
    trained = read_record(output / cell.folder / RUN / "train.json")
    fitted = prepare(trace(model, data["calibration"]), rule, temperatures=True)
    run = compact(trace(model, data["validation"]))
    numbers = trial_metrics(run, fitted.criterion, data.metrics[0], fitted.temperatures)
    metrics = {**trained["metrics"], **numbers}
    record_trial(cell, output, run, trained["config"], metrics, started)


def _conflict_watch(
    cell: TrainingTrial, model: SegmentedModel, rows: Any, output: Path
) -> list[TrainerCallback]:
    """Measures gradient conflict where the cell asks for it, and keeps it beside the cell's record."""
    from offramp.training.gradient_conflict.callback import ConflictCallback
    from offramp.training.stages import training_steps

    if not cell.conflict:
        return []
    total = training_steps(cell.method.strategy, cell.options, len(rows))
    steps = sorted({round(share * total) for share in cell.conflict})
    return [ConflictCallback(model, rows, steps, output / cell.folder, seed=cell.seed)]


def compact(trace: Trace) -> Trace:
    """The trace with its logits rounded to half precision: some ten kilobytes, and what all numbers are made of."""

    def rounded(values: Any) -> Any:
        return None if values is None else values.astype(np.float16)

    return replace(trace, logits=rounded(trace.logits), gates=rounded(trace.gates))


def expand(trace: Trace) -> Trace:
    """A compact trace with single-precision arrays again."""
    gates = None if trace.gates is None else trace.gates.astype(np.float32)
    return replace(trace, logits=trace.logits.astype(np.float32), gates=gates)


def trial_metrics(
    run: Trace, criterion: Criterion, metric: str, temperatures: Sequence[float] | None
) -> dict[str, Any]:
    """The numbers of one model: the score of every exit, and the areas of its curve.

    Args:
        run: over validation, compact.
        criterion: with what was fitted on calibration data, but for the threshold, which the curve sweeps.
        metric: main metric of the task.
        temperatures: fitted on calibration data; None for regression.
    """
    run = expand(run)
    labels, answers = run.require_labels(), run.predictions()
    scores = [score(metric, labels, answers[:, k]) for k in range(run.exits)]
    curve = speed_accuracy(run, criterion, metric=metric, temperatures=temperatures)
    return {
        "metric": metric,
        "exit_layers": run.exit_layers,
        "scores": scores,
        "mean_score": float(np.mean(scores)),
        "areas": {name: area(curve, limits) for name, limits in RANGES.items()},
        "temperatures": temperatures,
        "rule_options": {name: value for name, value in asdict(criterion).items() if name != "threshold"},
    }


def record_trial(
    cell: TrainingTrial,
    output: Path,
    run: Trace,
    trained: dict[str, Any],
    metrics: dict[str, Any],
    started: datetime | None = None,
) -> None:
    """Write a cell's trace first and its record last: a cell that has a record is complete.

    Args:
        cell, output: as for `run_cell`.
        run: over validation, compact.
        trained: config of the training record: what the options came to.
        metrics: of `trial_metrics`, and what else is to be kept.
        started: when the cell began.
    """
    folder = output / cell.folder
    with atomic_write(folder / TRACE) as draft:
        run.save(draft)
    wide = expand(run)
    costs = cost_statistic(wide, static_exits(wide), [""] * wide.exits).exact()
    exits = {"exit_layer": wide.exit_layers, "cost": costs, metrics["metric"]: metrics["scores"]}
    write_record(
        folder,
        command="sweep",
        config={"cell": cell.to_dict(), "criterion": cell.rule, "validation": len(run), "training": trained},
        metrics={**metrics, "trace": TRACE, "name": cell.method.name},
        seed=cell.seed,
        tables={"exits": to_json(table(exits).to_pylist())},
        started=started,
    )
