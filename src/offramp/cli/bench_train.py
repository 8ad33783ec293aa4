"""`offramp bench train`: the cost of a training step, by strategy, against plain fine-tuning."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    Seed,
    Threads,
    finish_bench,
    limit_threads,
)
from offramp.cli.paths import PathOption, writing
from offramp.training.options import TrainingOptions


def bench_train(
    data: str,
    *,
    output: PathOption,
    backbone: str = "minilm-l6",
    exits: list[int] | None = None,
    strategies: tuple[str, ...] = ("joint", "sweet", "multi_model"),
    steps: int = 50,
    rounds: int = 3,
    max_length: int | None = None,
    training: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
    seed: Seed = 0,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Time training steps and their memory, every strategy against a plain classifier in transformers.Trainer.

    For example `offramp bench train sst2 --precision auto --output results/bench-train-minilm`. All strategies train
    on the same batches in turns.

    Args:
        data: as for `offramp train`.
        output: folder of the record.
        backbone: as for `offramp train`.
        exits: layers to leave after; by default a sixth, a third, two thirds, and the last.
        strategies: strategies, as for `offramp train`.
        steps: training steps of each strategy in a round.
        rounds: number of rounds.
        max_length: longest input in tokens; by default 256.
        seed: for the order of the data.
    """
    count = limit_threads(threads)
    from offramp.bench.training_steps import bench_training
    from offramp.training.run import untrained_model

    started = datetime.now(UTC)
    with writing(output, "bench train"):
        texts = reading.load(data)
        models = {
            name: untrained_model(name, backbone, exits, texts, max_length=max_length, seed=seed)
            for name in strategies
        }
        costs = bench_training(
            models, texts["train"], training, steps=steps, rounds=rounds, seed=seed, progress=True
        )
        table = [asdict(cost) for cost in costs]
        config = {
            "data": texts.name,
            "backbone": backbone,
            "exit_layers": next(iter(models.values())).exit_layers,
            "steps": steps,
            "rounds": rounds,
            "threads": count,
            **asdict(training),
        }
        finish_bench(
            output,
            "bench train",
            {"bench_train": table},
            config,
            started,
            seed=seed,
            title="a training step",
            json_output=json,
        )
