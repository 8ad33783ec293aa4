"""`offramp evaluate`: scores by exit, speed–accuracy curves and, for several models, how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from offramp._core.errors import ConfigError
from offramp.cli.common import (
    DataOptions,
    Seed,
    emit,
    limit_threads,
    load_for,
    note,
    refuse_calibration,
    show,
    write_tables,
)
from offramp.cli.policies import policy_for

if TYPE_CHECKING:
    from offramp._core.trace import Trace
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

TIMED_THRESHOLDS = 5


def evaluate(
    models: list[Path],
    *,
    data: str,
    criterion: str = "confidence",
    split: str = "validation",
    max_accuracy_drop: float = 0.01,
    timed: int = 256,
    batch_size: int = 32,
    seed: Seed = 0,
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Measure models: the score of every exit, speed–accuracy curves, and what their policies make of them.

    For example `offramp evaluate runs/joint runs/sweet --data movies`. Several models are compared over the same
    examples, with paired-bootstrap 95 % intervals on their differences to the first one.

    Args:
        models: folders that `offramp train` wrote; the first is the baseline.
        data: what they are measured on; its calibration split is used for temperatures and thresholds alone.
        criterion: the exit rule. A model without a policy for it is tuned first.
        split: the split to report on; never the calibration split.
        max_accuracy_drop: target of the tuning, where a model has no policy yet.
        timed: examples on which time is measured, at five thresholds; 0 measures none.
        batch_size: for the timing.
        seed: of the bootstrap.
        output: folder for the comparison of several models; by default `comparison` beside the first one. What
            speaks of one model goes to `evaluation` inside its folder.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    refuse_calibration(split)
    found = reading.load(data)
    settings = Measurement(criterion, split, max_accuracy_drop, timed, batch_size, seed, data)
    folders = dict(zip(model_names(models), models, strict=True))
    measured = {name: measure(name, folder, found, settings) for name, folder in folders.items()}
    if len(measured) > 1:
        compare_models(measured, found, settings, output or models[0].parent / "comparison")
    emit(json, {"metric": found.metrics[0], "models": {name: m.numbers for name, m in measured.items()}})


@dataclass(frozen=True)
class Measurement:
    """How models are measured; see `evaluate`."""

    criterion: str
    split: str
    max_accuracy_drop: float
    timed: int
    batch_size: int
    seed: int
    data: str


@dataclass(frozen=True)
class Measured:
    """One model's trace (logits scaled by temperature), policy and numbers."""

    trace: Trace
    policy: Policy
    numbers: dict[str, Any]


def model_names(models: Sequence[Path]) -> list[str]:
    """A short name for each folder: its last part, or as much of the path as tells them apart."""
    for parts in range(1, 5):
        names = ["/".join(path.resolve().parts[-parts:]) for path in models]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"expected different models, got {[str(m) for m in models]}")


def measure(name: str, folder: Path, data: Any, settings: Measurement) -> Measured:
    """Trace and time one model; the record and its tables go to `evaluation` inside its folder."""
    from offramp._core.records import write_record
    from offramp.evaluation import policy_scores, trace_doubts
    from offramp.inference.tracing import trace

    started = datetime.now(UTC)
    metric = data.metrics[0]
    model = load_for(folder, data, "calibration", settings.split)
    policy = policy_for(folder, model, data, settings.criterion, settings.max_accuracy_drop)
    run = trace(model, data[settings.split], progress=True)
    doubts = trace_doubts(run, policy)
    at_policy = policy_scores(run, policy, metric=metric, seed=settings.seed)
    times = None
    if settings.timed:
        times = measure_time(model, policy, data[settings.split], settings.timed, settings.batch_size)
    tables = model_tables(name, run, policy, at_policy, times, data.metrics, settings.seed)
    numbers = {key: interval.estimate for key, interval in at_policy.items()}
    write_record(
        folder / "evaluation",
        command="evaluate",
        config={**asdict(settings), "examples": len(run)},
        metrics={
            **numbers,
            "metric": metric,
            "exit_layers": run.exit_layers,
            "criterion": settings.criterion,
            "threshold": policy.criterion.threshold,
            "doubts": doubts,
        },
        seed=settings.seed,
        tables=write_tables(folder / "evaluation", tables),
        started=started,
    )
    _show(name, tables, numbers, metric, doubts)
    return Measured(run.scaled(policy.temperatures), policy, numbers)


def model_tables(
    name: str, run: Trace, policy: Policy, at_policy: Any, times: Any, metrics: Sequence[str], seed: int
) -> dict[str, Any]:
    """The tables of one model's record, as `offramp.reports.records` names them."""
    from offramp.evaluation import (
        exit_histogram,
        interval_table,
        per_exit,
        reliability_table,
        speed_accuracy,
        stack_curves,
    )

    curve = speed_accuracy(
        run, policy.criterion, metric=metrics[0], temperatures=policy.temperatures, resamples=500, seed=seed
    )
    tables = {
        "per_exit": per_exit(run, metrics=metrics, seed=seed),
        "histogram": exit_histogram(run, policy),
        "policy": interval_table(at_policy.values()),
    }
    if run.kind == "classification":
        tables["reliability"] = reliability_table(run, policy.temperatures)
    if times is not None:
        tables["timing"] = times
        curve = curve.with_times({row["threshold"]: row["time_speedup"] for row in times.to_pylist()})
    return tables | {"curves": stack_curves({name: curve})}


def compare_models(measured: Mapping[str, Measured], data: Any, settings: Measurement, output: Path) -> None:
    """Differences to the first model with paired intervals, and who is best where; recorded in `output`."""
    from offramp._core.records import write_record
    from offramp.evaluation import compare, stack_curves

    started = datetime.now(UTC)
    comparison = compare(
        {name: m.trace for name, m in measured.items()},
        {name: m.policy.criterion for name, m in measured.items()},
        metric=data.metrics[0],
        seed=settings.seed,
    )
    tables = {
        "curves": stack_curves(comparison.curves),
        "scores": comparison.scores,
        "winners": comparison.winners,
    }
    write_record(
        output,
        command="compare",
        config={**asdict(settings), "models": list(measured), "baseline": comparison.baseline},
        metrics={"metric": comparison.metric, "name": "comparison"},
        seed=settings.seed,
        tables=write_tables(output, tables),
        started=started,
    )
    show(f"{comparison.metric}, and difference to {comparison.baseline}", comparison.scores.to_pylist())
    show("who is best where", comparison.winners.to_pylist())
    note(f"comparison: {output}")


def measure_time(model: SegmentedModel, policy: Policy, rows: Any, examples: int, batch_size: int) -> Any:
    """Measured speed-ups of the policy's own threshold and a few around it, against full depth."""
    import numpy as np

    from offramp.criteria import scores, threshold_grid
    from offramp.evaluation import time_speedups
    from offramp.inference.segments import TorchSegments
    from offramp.inference.tracing import trace
    from offramp.model import MultiModelForSequenceClassification
    from offramp.model.encoding import TextEncoder

    some = rows.select(range(min(examples, len(rows))))
    grid = threshold_grid(
        policy.criterion, scores(policy.criterion, trace(model, some).scaled(policy.temperatures))
    )
    spread = np.quantile(grid, np.linspace(0, 1, TIMED_THRESHOLDS), method="nearest")
    # At full depth a cascade is its last member: nobody would run the others first.
    full = (
        TorchSegments(model.member(len(model.members) - 1))
        if isinstance(model, MultiModelForSequenceClassification)
        else None
    )
    return time_speedups(
        TorchSegments(model),
        policy,
        TextEncoder.of(model).dataset(some)[0],
        thresholds=sorted({*spread.tolist(), float(policy.criterion.threshold)}),
        full=full,
        batch_size=batch_size,
        repeats=3,
    )


def _show(
    name: str, tables: Mapping[str, Any], numbers: Mapping[str, Any], metric: str, doubts: Sequence[str]
) -> None:
    rows = [row for row in tables["per_exit"].to_pylist() if row["metric"] == metric]
    show(
        f"{name}: {metric} by exit",
        [{k: row[k] for k in ("layer", "cost", "score", "low", "high")} for row in rows],
    )
    show(f"{name}: with its policy", [numbers])
    for doubt in doubts:
        note(f"{name}: {doubt}")
