"""`offramp bench attack`: what an attack costs, ours against the released work pattern."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from offramp.cli.common import DataOptions, Seed, emit, limit_threads, record_bench, show
from offramp.cli.victims import SearchOptions, choose_target


def bench_attack(
    model: Path,
    data: str,
    *,
    recipes: tuple[str, ...] = ("same-plus", "same-word"),
    criterion: str = "confidence",
    policy: Path | None = None,
    max_accuracy_drop: float = 0.01,
    split: str = "validation",
    examples: int = 20,
    parts: int = 2,
    batch_size: int = 64,
    seed: Seed = 0,
    search: Annotated[SearchOptions, Parameter(name="*")] = SearchOptions(),
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Time attacks against the released implementation's work pattern, on the same examples in turns.

    For example `offramp bench attack runs/sweet movies`. The released pattern attacks one example after another, runs
    every exit every time and never stops early: give it few examples.

    Args:
        model: folder that `offramp train` wrote.
        data: what is attacked.
        recipes: those of `offramp attack`.
        criterion: the exit rule; a model without a policy for it is tuned first.
        policy: a policy file, instead of the one beside the model.
        max_accuracy_drop: target of the tuning, where there is no policy yet.
        split: the split that the examples come from.
        examples: how many are attacked, chosen by `seed`.
        parts: how often the attacks take turns.
        batch_size: texts that ours run at once.
        seed: for the choice of examples, and for what a recipe draws.
        search: how the recipes search.
        output: folder of the record; by default `bench-attack` inside the model's folder.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp._core.environment import usable_cores
    from offramp.attacks.bench import REFERENCE
    from offramp.attacks.bench import bench_attack as run

    started = datetime.now(UTC)
    target = choose_target(
        model,
        data,
        reading,
        criterion=criterion,
        policy=policy,
        max_accuracy_drop=max_accuracy_drop,
        split=split,
        examples=examples,
        seed=seed,
    )
    measured = run(
        target.model,
        target.policy,
        target.rows,
        recipes,
        parts=parts,
        batch_size=batch_size,
        seed=seed,
        **vars(search),
    )
    slow = next(way for way in measured if way.name == REFERENCE)
    table = [{**asdict(way), "times_faster": slow.seconds / way.seconds} for way in measured]
    run_with = {"parts": parts, "batch_size": batch_size, "threads": threads or usable_cores()}
    config = {"data": data, "split": split, **run_with, **target.described(search)}
    folder = output or model / "bench-attack"
    path = record_bench(folder, "bench attack", {"bench_attack": table}, config, started, seed=seed)
    show("attacks on the same examples", table)
    emit(json, {"record": str(path), "rows": table})
