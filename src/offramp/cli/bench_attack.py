"""`offramp bench attack`: the cost of an attack, ours against the work pattern of the released code."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    RuleOptions,
    Threads,
    finish_bench,
    limit_threads,
)
from offramp.cli.paths import PathOption, results_folder, writing
from offramp.cli.victims import FewExamples, SearchOptions, choose_attack_target


def bench_attack(
    model: PathOption,
    data: str,
    *,
    recipes: tuple[str, ...] = ("same-plus", "same-word", "random-word"),
    rule: RuleOptions = RuleOptions(),
    chosen: FewExamples = FewExamples(),
    batch_size: int = 64,
    search: SearchOptions = SearchOptions(),
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Time attacks against the released implementation's work pattern, on the same examples in turns.

    For example `offramp bench attack runs/sweet movies --threads 1`. The released pattern runs all layers for every
    text, and does not stop on success. Use few examples.

    Args:
        model: folder that `offramp train` wrote.
        data: the data whose texts are attacked.
        recipes: recipes, as for `offramp attack`.
        batch_size: texts that ours run at once.
        output: folder of the record; by default `bench-attack` inside the model's folder.
    """
    count = limit_threads(threads)
    from offramp.bench.attacks import bench_attack as run

    started, folder = datetime.now(UTC), results_folder(model, "bench-attack", output)
    with writing(folder, "bench attack"):
        target = choose_attack_target(model, data, reading, rule, chosen)
        measured = run(
            target.model,
            target.policy,
            target.rows,
            recipes,
            batch_size=batch_size,
            seed=chosen.seed,
            progress=True,
            options=search,
        )
        run_with = {"batch_size": batch_size, "threads": count, "max_length": target.model.max_length}
        config = {"data": data, "split": chosen.split, **run_with, **target.described(search)}
        finish_bench(
            folder,
            "bench attack",
            {"bench_attack": [asdict(way) for way in measured]},
            config,
            started,
            seed=chosen.seed,
            title="attacks on the same examples",
            json_output=json,
        )
