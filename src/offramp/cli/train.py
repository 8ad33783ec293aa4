"""`offramp train`: fine-tune an encoder so that it can leave early."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from offramp.cli.common import DataOptions, Seed, emit, limit_threads, note, show
from offramp.cli.conflict import conflict_watch
from offramp.training.options import TrainingOptions


def train(
    data: str,
    *,
    output: Path,
    backbone: str = "minilm-l6",
    exits: list[int] | None = None,
    strategy: str = "sweet",
    seed: Seed = 0,
    pooling: Literal["mean", "first", "pooler"] | None = None,
    gates: bool = False,
    max_length: int | None = None,
    training: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
    conflict_steps: list[int] | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Train a multi-exit classifier. The same command resumes a stopped run.

    For example `offramp train movies --strategy sweet --exits 1 2 4 6 --output runs/sweet`.

    Args:
        data: a packaged set, a GLUE task or folder, your own file, or a hub name; see `offramp data`.
        output: folder of the model and its record.
        backbone: a packaged encoder (minilm-l6, mpnet-base, minilm-l3), a folder, or a hub name.
        exits: layers to leave after, counted from 1; by default a sixth, a third, two thirds, and the last.
        strategy: joint (Early-Exit), sweet (each exit has its own layers), multi_model (separate classifiers),
            two_stage, alternating, self_distill, mixed, gradient_equilibrium or pcgrad.
        seed: for everything random in training.
        pooling: how an exit reads the tokens; by default the encoder's.
        gates: give each exit a learned gate, for the criterion `learned`.
        max_length: longest input in tokens; by default 256.
        training: how to fine-tune.
        conflict_steps: steps after which to measure the conflict between the exits' gradients, such as 0 60 120; the
            results go to `conflict` in the output folder, as from `offramp conflict`.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    loaded = reading.load(data)
    from offramp.training.run import train as fit
    from offramp.training.run import untrained_model

    model = untrained_model(
        strategy, backbone, exits, loaded, pooling=pooling, gates=gates, max_length=max_length, seed=seed
    )
    watch = conflict_watch(model, loaded, conflict_steps, output, seed)
    model = fit(
        model,
        loaded,
        strategy=strategy,
        seed=seed,
        output_dir=output,
        **vars(training),
        callbacks=watch.callbacks,
    )
    watch.record()
    rows = score_exits(model, loaded)
    show(f"{loaded.metrics[0]} on validation, by exit", rows)
    note(f"model: {output / 'model'}")
    emit(json, {"model": str(output / "model"), "metric": loaded.metrics[0], "exits": rows})


def score_exits(model: Any, data: Any, split: str = "validation") -> list[dict[str, Any]]:
    """The main metric of each exit on a split."""
    from offramp.inference.tracing import trace
    from offramp.metrics import score

    run = trace(model, data[split], progress=True)
    labels = run.require_labels()
    predictions = run.predictions()
    cost = run.flops.mean(axis=0) / run.full_flops.mean()
    return [
        {
            "exit_layer": layer,
            data.metrics[0]: score(data.metrics[0], labels, predictions[:, k]),
            "cost": float(cost[k]),
        }
        for k, layer in enumerate(run.exit_layers)
    ]
