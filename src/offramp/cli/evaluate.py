"""`offramp evaluate`: scores by exit, speed–accuracy curves and, for several models, how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core.arguments import check_share
from offramp._core.errors import ConfigError
from offramp.cli.common import (
    CriterionName,
    DataOptions,
    JsonFlag,
    Seed,
    Threads,
    emit,
    limit_threads,
    load_for,
    note,
    policy_for,
    refuse_calibration,
    show,
    write_tables,
)
from offramp.cli.paths import PathOption, results_folder, writing

if TYPE_CHECKING:
    from offramp.data.text_data import TextData
    from offramp.evaluation import ModelEvaluation


def evaluate(
    models: list[PathOption],
    *,
    data: str,
    criterion: CriterionName = "confidence",
    split: str = "validation",
    max_accuracy_drop: float = 0.01,
    timed: int = 256,
    batch_size: int = 32,
    seed: Seed = 0,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Measure models: the score of every exit, speed–accuracy curves, and the scores of their policies.

    For example `offramp evaluate runs/joint runs/sweet --data movies`. Several models are compared over the same
    examples, with paired-bootstrap 95 % intervals on their differences to the first one.

    Args:
        models: folders that `offramp train` wrote; the first is the baseline.
        data: the data to measure on. Its calibration split serves for temperatures and thresholds alone.
        split: the split to report on; never the calibration split.
        max_accuracy_drop: target of the tuning, where a model has no policy yet.
        timed: number of examples timed, at five thresholds; 0 skips the timing.
        batch_size: for the timing.
        seed: of the bootstrap.
        output: folder for the comparison of several models; by default `comparison` beside the first one. The results
            of a single model go to `evaluation` inside its folder.
    """
    limit_threads(threads)
    check_share("max_accuracy_drop", max_accuracy_drop, unit=" points")
    refuse_calibration(split)
    settings = Settings(criterion, split, max_accuracy_drop, timed, batch_size, seed, data)
    folders = dict(zip(model_names(models), models, strict=True))
    with ExitStack() as stack:
        compared = output or models[0].parent / "comparison"
        for folder in folders.values():
            stack.enter_context(writing(results_folder(folder, "evaluation"), "evaluate"))
        if len(folders) > 1:
            stack.enter_context(writing(compared, "compare"))
        content = reading.load(data)
        evaluated = {name: measure(name, folder, content, settings) for name, folder in folders.items()}
        if len(evaluated) > 1:
            compare(evaluated, content.metrics[0], settings, compared)
    numbers = {name: _estimates(model, criterion) for name, model in evaluated.items()}
    emit(json, {"metric": content.metrics[0], "models": numbers})


@dataclass(frozen=True)
class Settings:
    """How models are evaluated, as records keep it; see `evaluate`."""

    criterion: str
    split: str
    max_accuracy_drop: float
    timed: int
    batch_size: int
    seed: int
    data: str


def model_names(models: Sequence[Path]) -> list[str]:
    """A short name for each folder: its last part, or as many parts of the path as make the names differ."""
    for count in range(1, 5):
        names = ["/".join(path.resolve().parts[-count:]) for path in models]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"expected different models, got {[str(m) for m in models]}")


def measure(name: str, folder: Path, data: TextData, settings: Settings) -> ModelEvaluation:
    """Evaluate one model. The record and its tables go to `evaluation` inside its folder."""
    from offramp.evaluation import evaluate as run
    from offramp.evaluation.operating_points import RANKING
    from offramp.model.card import update_card

    started = datetime.now(UTC)
    criterion = settings.criterion
    model = load_for(folder, data, "calibration", settings.split)
    policy = policy_for(folder, model, data, criterion, settings.max_accuracy_drop)
    evaluation = run(
        {name: model},
        data,
        policies={name: [policy]},
        criteria=[criterion],
        split=settings.split,
        timed=settings.timed,
        batch_size=settings.batch_size,
        seed=settings.seed,
        progress=True,
    )
    evaluated = evaluation.models[name]
    exits = evaluated.per_exit.to_pylist()
    rows = [row for row in exits if row["metric"] == evaluation.metric]
    ranking = {row["layer"]: row["score"] for row in exits if row["metric"] == RANKING}
    columns = ("layer", "cost", "score", "low", "high")
    shown = [
        {column: row[column] for column in columns} | ({RANKING: ranking[row["layer"]]} if ranking else {})
        for row in rows
    ]
    show(f"{name}: {evaluation.metric} by exit", shown)
    show(f"{name}: with its policy", [_estimates(evaluated, criterion)])
    for doubt in evaluated.doubts:
        note(f"{name}: {doubt}")
    record_model(name, evaluated, evaluation.metric, settings, folder / "evaluation", started)
    update_card(folder)
    return evaluated


def record_model(
    name: str, evaluated: ModelEvaluation, metric: str, settings: Settings, folder: Path, started: datetime
) -> None:
    """Write the record of one model, with its tables, as `offramp.reports.records` names them."""
    from offramp._core.records import write_record
    from offramp.evaluation import interval_table, stack_curves

    criterion = settings.criterion
    rule = evaluated.rules[criterion]
    tables = {
        "per_exit": evaluated.per_exit,
        "histogram": rule.histogram,
        "policy": interval_table(rule.scores.values()),
        "reliability": evaluated.reliability,
        "timing": rule.timing,
        "curves": stack_curves({name: rule.curve}),
    }
    measured = {table: rows for table, rows in tables.items() if rows is not None}
    write_record(
        folder,
        command="evaluate",
        config={**asdict(settings), "examples": len(evaluated.trace)},
        metrics={
            **_estimates(evaluated, criterion),
            "metric": metric,
            "exit_layers": evaluated.trace.exit_layers,
            "criterion": criterion,
            "threshold": rule.policy.criterion.threshold,
            "doubts": evaluated.doubts,
        },
        seed=settings.seed,
        tables=write_tables(folder, measured),
        started=started,
    )


def _estimates(evaluated: ModelEvaluation, criterion: str) -> dict[str, float]:
    return {name: interval.estimate for name, interval in evaluated.rules[criterion].scores.items()}


def compare(evaluated: Mapping[str, ModelEvaluation], metric: str, settings: Settings, output: Path) -> None:
    """Compare the models with the first one, and record the comparison in `output`."""
    from offramp._core.records import write_record
    from offramp.evaluation import compare_models, stack_curves

    started = datetime.now(UTC)
    comparison = compare_models(evaluated, settings.criterion, metric, seed=settings.seed)
    tables = {
        "curves": stack_curves(comparison.curves),
        "scores": comparison.scores,
        "winners": comparison.winners,
    }
    show(f"{comparison.metric}, and difference to {comparison.baseline}", comparison.scores.to_pylist())
    show("who is best where", comparison.winners.to_pylist())
    write_record(
        output,
        command="compare",
        config={**asdict(settings), "models": list(evaluated), "baseline": comparison.baseline},
        metrics={"metric": comparison.metric, "name": "comparison"},
        seed=settings.seed,
        tables=write_tables(output, tables),
        started=started,
    )
    note(f"comparison: {output}")
