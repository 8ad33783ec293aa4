"""`offramp train`: fine-tune an encoder so that it can leave early."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from offramp._core.progress import progress
from offramp._core.run_folder import RunFolder
from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    Seed,
    Threads,
    emit,
    limit_threads,
    note,
    show,
)
from offramp.cli.conflict import conflict_watch
from offramp.cli.paths import PathOption
from offramp.training.options import RECORD, TrainingOptions
from offramp.training.strategies import STRATEGIES

LABELS = ", ".join(f"{name} ({strategy.label})" for name, strategy in STRATEGIES.items())
StrategyName = Annotated[str, Parameter(help=f"how the exits are trained: {LABELS}.")]


def train(
    data: str,
    *,
    output: PathOption,
    backbone: str = "minilm-l6",
    exits: list[int] | None = None,
    strategy: StrategyName = "sweet",
    seed: Seed = 0,
    pooling: Literal["mean", "first", "pooler"] | None = None,
    gates: bool = False,
    max_length: int | None = None,
    training: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
    conflict_steps: list[int] | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Train a multi-exit classifier. The same command resumes a stopped run.

    For example `offramp train movies --strategy sweet --exits 1 2 4 6 --output runs/sweet`.

    Args:
        data: a packaged set, a GLUE task or folder, your own file, or a hub name; see `offramp data`.
        output: folder of the model and its record.
        backbone: a packaged encoder (minilm-l6, mpnet-base, minilm-l3), a folder, or a hub name.
        exits: layers to leave after, counted from 1; a 0 in front leaves before the first layer, by the words alone. By
            default a sixth, a third, two thirds, and the last.
        seed: for everything random in training.
        pooling: how an exit reads the tokens; by default the encoder's.
        gates: add a learned gate to each exit, for the criterion `learned`.
        max_length: longest input in tokens; by default 256.
        conflict_steps: steps after which the conflict between the exits' gradients is measured, such as 0 60 120. The
            results go to `conflict` in the output folder, as from `offramp conflict`.
    """
    limit_threads(threads)
    RunFolder(output, "run", mark="strategy", record_file=RECORD).check_free()
    loaded = reading.load(data)
    with progress("load the encoder"):
        from offramp.inference.tracing import trace
        from offramp.metrics import score
        from offramp.training.run import train as fit
        from offramp.training.run import untrained_model

        model = untrained_model(
            strategy, backbone, exits, loaded, pooling=pooling, gates=gates, max_length=max_length, seed=seed
        )
    callbacks, record_conflict = conflict_watch(model, loaded, conflict_steps, output, seed)
    model = fit(
        model,
        loaded,
        strategy=strategy,
        seed=seed,
        output_dir=output,
        **vars(training),
        callbacks=callbacks,
    )
    record_conflict()
    run, metric = trace(model, loaded["validation"], progress=True), loaded.metrics[0]
    labels, answers = run.require_labels(), run.predictions()
    costs = run.flops.mean(axis=0) / run.full_flops.mean()
    rows = [
        {"exit_layer": layer, metric: score(metric, labels, answers[:, k]), "cost": float(costs[k])}
        for k, layer in enumerate(run.exit_layers)
    ]
    show(f"{metric} on validation, by exit", rows)
    note(f"model: {output / 'model'}")
    emit(json, {"model": str(output / "model"), "metric": metric, "exits": rows})
