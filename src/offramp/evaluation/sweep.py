"""Run a sweep: each cell is trained, calibrated, traced and recorded; what is recorded is not run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from offramp._core.errors import ConfigError, OfframpError, unknown_name
from offramp._core.plain import plain
from offramp._core.records import FILE_NAME, read_record, write_record
from offramp._core.trace import Trace
from offramp.calibration import fit_temperatures
from offramp.criteria import make_criterion
from offramp.evaluation.areas import RANGES, area
from offramp.evaluation.columns import table
from offramp.evaluation.curves import speed_accuracy
from offramp.evaluation.outcomes import cost_statistic, static_exits
from offramp.evaluation.sweep_plan import Cell, Sweep
from offramp.metrics import score

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from offramp.data import TextData
    from offramp.model.base import SegmentedModel

TRACE, RUN, LOCK = "trace.npz", "run", ".lock"
ENGINES = ("local", "ray")
KEPT_IN_MEMORY = 8  # data sets

Status = Literal["waiting", "running", "done", "failed", "elsewhere"]
Watch = Callable[[Cell, Status, str], None]  # cell, what became of it, a sentence where it failed
Load = Callable[[str], "TextData"]


def run_sweep(
    sweep: Sweep,
    output: str | Path,
    *,
    engine: str = "local",
    keep_models: bool = False,
    workers: int | None = None,
    watch: Watch = lambda cell, status, reason: None,
) -> dict[str, str]:
    """Run every cell that has no record yet.

    Args:
        sweep: of `read_sweep`; where it is tuned on another sweep, see `study.tuned_rates`.
        output: folder of the sweep; each cell has a folder of its own below it.
        engine: `local`, one cell after another in this process; or `ray`, on a cluster (its machines must share
            the folder).
        keep_models: keep each cell's model, under `run/model` in its folder.
        workers: for ray, cells at once; by default as many as the cluster has processors for.
        watch: is told about every cell, once what it is doing changes.

    Returns:
        Reasons by cell, for those that failed; they are tried again when the sweep is run again.

    Raises:
        ConfigError: an unknown engine, strategy or exit rule, or a folder that holds other cells of these names.
    """
    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    folder = Path(output)
    check_cells(sweep.cells)
    left = []
    for cell in sweep.cells:
        done = is_recorded(cell, folder)
        watch(cell, "done" if done else "waiting", "")
        left += [] if done else [cell]
    if engine == "ray" and left:
        from offramp.evaluation.sweep_ray import run_on_ray

        return run_on_ray(left, folder, keep_models=keep_models, workers=workers, watch=watch)
    return _run_here(left, folder, keep_models, watch)


def _run_here(cells: Sequence[Cell], folder: Path, keep_models: bool, watch: Watch) -> dict[str, str]:
    from offramp.data import load_data

    load, failed = lru_cache(KEPT_IN_MEMORY)(load_data), {}
    for cell in cells:
        watch(cell, "running", "")
        try:
            watch(cell, run_cell(cell, folder, keep_model=keep_models, load=load), "")
        except OfframpError as error:
            failed[str(cell)] = str(error)
            watch(cell, "failed", str(error))
    return failed


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise `ConfigError` or `CriterionError` for names and options that no cell can run with."""
    from offramp.training.strategies import make_strategy

    for cell in cells:
        make_strategy(cell.method.strategy, **cell.method.options)
        make_criterion(cell.rule)


def is_recorded(cell: Cell, output: Path) -> bool:
    """Whether a cell has been run; `ConfigError` where its folder holds another one."""
    path = output / cell.folder / FILE_NAME
    if not path.exists():
        return False
    stored, asked = read_record(path)["config"].get("cell", {}), cell.to_dict()
    changed = sorted(key for key in asked if stored.get(key) != asked[key])
    if changed:
        raise ConfigError(
            f"{path.parent} holds a cell with another {changed[0]} ({stored.get(changed[0])!r}, asked for "
            f"{asked[changed[0]]!r}): choose another output folder, or delete that one"
        )
    return True


def run_cell(
    cell: Cell, output: Path, *, keep_model: bool = False, load: Load | None = None
) -> Literal["done", "elsewhere"]:
    """Train, calibrate, trace and record one cell, unless that has been done or is being done.

    A cell whose process died goes on from its last checkpoint.

    Args:
        cell: what to run.
        output: folder of the sweep.
        keep_model: keep the trained model.
        load: gives the data of a task; `load_data` by default.

    Returns:
        "done", or "elsewhere" where another process holds the cell.
    """
    from filelock import FileLock, Timeout

    folder = output / cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # The system lets go of the lock when its process dies, however it dies.
        with FileLock(folder / LOCK, timeout=0):
            try:
                if not is_recorded(cell, output):
                    _run_cell(cell, output, load)
                if not keep_model:
                    shutil.rmtree(folder / RUN, ignore_errors=True)
            finally:
                (folder / LOCK).unlink(missing_ok=True)
    except Timeout:
        return "elsewhere"
    return "done"


def _run_cell(cell: Cell, output: Path, load: Load | None) -> None:
    from offramp.data import load_data
    from offramp.inference.tracing import trace
    from offramp.training.run import train
    from offramp.training.untrained import untrained_model

    started = datetime.now(UTC)
    data = (load or load_data)(cell.task)
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
    make_criterion(cell.rule).check(len(model.exit_layers), model.kind, model.gates)
    model = train(
        model,
        data,
        strategy=cell.method.strategy,
        seed=cell.seed,
        output_dir=output / cell.folder / RUN,
        options=cell.options,
        callbacks=_conflict_watch(cell, model, data["train"], output),
        progress=False,
    )
    seconds = (datetime.now(UTC) - started).total_seconds()
    trained = read_record(output / cell.folder / RUN / "train.json")["config"]
    temperatures = None if model.kind == "regression" else fit_temperatures(trace(model, data["calibration"]))
    run = compact(trace(model, data["validation"]))
    metrics = {**cell_metrics(run, cell.rule, data.metrics[0], temperatures), "train_seconds": seconds}
    record_cell(cell, output, run, trained, {**metrics, "train_examples": len(data["train"])}, started)


def _conflict_watch(cell: Cell, model: SegmentedModel, rows: Any, output: Path) -> list[TrainerCallback]:
    """Measures gradient conflict where the cell asks for it, and keeps it beside the cell's record."""
    from offramp.training.conflict_callback import ConflictCallback
    from offramp.training.run import training_steps

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


def cell_metrics(
    run: Trace, criterion: str, metric: str, temperatures: Sequence[float] | None
) -> dict[str, Any]:
    """The numbers of one model: the score of every exit, and the areas of its curve."""
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
    }


def record_cell(
    cell: Cell,
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
        metrics: of `cell_metrics`, and what else is to be kept.
        started: when the cell began.
    """
    folder = output / cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{TRACE}"
    run.save(partial)
    partial.replace(folder / TRACE)
    wide = expand(run)
    costs = cost_statistic(wide, static_exits(wide), [""] * wide.exits).exact()
    exits = {"exit_layer": wide.exit_layers, "cost": costs, metrics["metric"]: metrics["scores"]}
    write_record(
        folder,
        command="sweep",
        config={"cell": cell.to_dict(), "criterion": cell.rule, "validation": len(run), "training": trained},
        metrics={**metrics, "trace": TRACE, "name": cell.method.name},
        seed=cell.seed,
        tables={"exits": plain(table(exits).to_pylist())},
        started=started,
    )
