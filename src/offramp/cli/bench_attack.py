"""`offramp bench attack`: what an attack costs, ours against the released work pattern."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from offramp.attacks.options import Options
from offramp.cli.common import (
    DataOptions,
    Seed,
    emit,
    limit_threads,
    load_for,
    pick_split,
    record_bench,
    show,
)
from offramp.cli.tune import policy_for


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
    search: Annotated[Options, Parameter(name="*")] = Options(),
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
    from offramp.engine.policy import Policy

    started = datetime.now(UTC)
    found = reading.load(data)
    victim = load_for(model, found)
    chosen = Policy.load(policy) if policy else policy_for(model, victim, found, criterion, max_accuracy_drop)
    rows = pick_split(found, split, examples, seed)
    measured = run(
        victim, chosen, rows, recipes, parts=parts, batch_size=batch_size, seed=seed, **vars(search)
    )
    slow = next(way for way in measured if way.name == REFERENCE)
    table = [{**asdict(way), "times_faster": slow.seconds / way.seconds} for way in measured]
    config = {
        "data": data,
        "split": split,
        "examples": len(rows),
        "parts": parts,
        "batch_size": batch_size,
        "threads": threads or usable_cores(),
        "criterion": chosen.criterion.name,
        "threshold": chosen.criterion.threshold,
        **vars(search),
    }
    folder = output or model / "bench-attack"
    path = record_bench(folder, "bench attack", {"bench_attack": table}, config, started, seed=seed)
    show("attacks on the same examples", table)
    emit(json, {"record": str(path), "rows": table})
