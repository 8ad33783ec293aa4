"""`offramp bench`: is early exit faster than the alternatives?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from offramp.cli.common import (
    DataOptions,
    Seed,
    emit,
    limit_threads,
    load_for,
    note,
    pick_split,
    record_bench,
    refuse_calibration,
    show,
)
from offramp.cli.policies import RuleOptions

if TYPE_CHECKING:
    from offramp.bench.baselines import BenchArtifacts
    from offramp.bench.speed import BenchConfig
    from offramp.model.base import SegmentedModel

SCALED, COMPARED = 128, 64  # texts that int8 scales are taken from, and texts on which exports are compared


@dataclass(frozen=True)
class BenchOptions:
    """What is timed.

    Args:
        batch_sizes: texts a request.
        length: tokens of every text, which is repeated or cut to them; by default as in the data.
        examples: texts, chosen by `seed` from `split`.
        split: the split they come from.
        repeats: how often every request is timed.
        seed: chooses the texts and their order.
        peers: names of the baselines that take part; by default all that there are libraries for.
        memory: measure peak memory, in a process for each baseline.
    """

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    length: int = 0
    examples: int = 200
    split: str = "validation"
    repeats: int = 3
    seed: Seed = 0
    peers: tuple[str, ...] = ()
    memory: bool = True

    def config(self, metric: str) -> BenchConfig:
        """These options as the benchmark takes them."""
        from offramp.bench.speed import BenchConfig

        return BenchConfig(
            self.batch_sizes, self.length, self.repeats, self.seed, metric, self.peers, self.memory
        )


def bench(
    model: Path,
    data: str,
    *,
    rule: Annotated[RuleOptions, Parameter(name="*")] = RuleOptions(),
    options: Annotated[BenchOptions, Parameter(name="*")] = BenchOptions(),
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Time a model with early exits against full depth in every runtime, smaller models, and earlier designs.

    For example `offramp bench runs/sweet movies`. All baselines take part in every round, on the same texts, and every
    row gives the score beside the time. `offramp report` draws the two against each other.

    Args:
        model: folder that `offramp train` wrote.
        data: the data that the model was trained on; its calibration split gives the scales of int8.
        rule: when the model leaves.
        options: what is timed.
        output: folder of the exports and the record; by default `bench` inside the model's folder. Exports of the same
            model, policy and texts in it are used again.
        reading: how to read the data.
        threads: CPU threads of every baseline; by default as many as the process may use.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp._core.environment import usable_cores
    from offramp.bench.artifacts import prepare
    from offramp.bench.baselines import BenchArtifacts
    from offramp.bench.speed import check_baselines
    from offramp.exporting.run import Texts

    refuse_calibration(options.split)
    started = datetime.now(UTC)
    texts = reading.load(data)
    loaded = load_for(model, texts, "calibration", options.split)
    policy = rule.of(model, loaded, texts)
    rows = pick_split(texts, options.split, options.examples, options.seed)
    folder, count = output or model / "bench", threads or usable_cores()
    artifacts = BenchArtifacts(model, folder, count, policy.exit_layers)
    config = options.config(texts.metrics[0])
    check_baselines(artifacts, config, len(rows))  # before the exports, which take minutes
    note(f"exports for every baseline: {folder}")
    few = rows.select(range(min(COMPARED, len(rows))))
    prepare(model, folder, policy, Texts(pick_split(texts, "calibration", SCALED), few))
    table, metrics = _measure(artifacts, loaded, rows, config)
    left = {"criterion": policy.criterion.name, "threshold": policy.criterion.threshold}
    settings = {"data": data, "threads": count, "metric": texts.metrics[0], **vars(options), **left}
    settings["exit_layers"] = policy.exit_layers
    path = record_bench(
        folder, "bench", {"bench": table}, settings, started, seed=options.seed, metrics=metrics
    )
    show_benchmark(table)
    cold = metrics["cold_start_seconds"]
    note(f"first answer of a fresh process, from the exported int8 folder: {cold:.2f} s")
    emit(json, {"record": str(path), "cold_start_seconds": cold, "rows": table})


def _measure(
    artifacts: BenchArtifacts, model: SegmentedModel, rows: Any, config: BenchConfig
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the benchmark, and what is measured beside them."""
    from offramp.bench.machine import OtherCpuLoad
    from offramp.bench.measures import cold_start
    from offramp.bench.speed import run_benchmark
    from offramp.engine.batching import token_counts
    from offramp.engine.manifest import Manifest
    from offramp.engine.onnx import FileEncoder
    from offramp.model.encoding import TextEncoder

    int8 = artifacts.work / "int8"
    encodings = TextEncoder.of(model).dataset(rows)[0]
    encoder = FileEncoder(int8, Manifest.load(int8))
    columns = [list(rows[name]) for name in ("text", "text_pair") if name in rows.column_names]
    labels = rows["label"] if "label" in rows.column_names else None

    def tokenise(chosen: Any) -> Any:
        return encoder(*([column[row] for row in chosen] for column in columns))

    load = OtherCpuLoad()
    table = run_benchmark(artifacts, encodings, labels, config, tokenise, note)
    return table, {
        "cold_start_seconds": cold_start(int8, artifacts.threads).p50,
        "other_cores_busy": load.cores(),
        "mean_tokens": float(token_counts(encodings).mean()),
    }


def show_benchmark(table: list[dict[str, Any]]) -> None:
    """The rows of a benchmark for people, a table for each batch size."""
    shown = ("peer", "p50", "p95", "p99", "throughput", "speedup", "faster", "cost", "share", "score")
    narrow = {"throughput": "texts/s", "speedup": "× eager", "faster": "× best full", "peak_mib": "MiB"}
    columns = (*shown, *(name for name in ("peak_mib", "joules") if any(row[name] for row in table)))
    for size in dict.fromkeys(row["batch_size"] for row in table):
        rows = [row for row in table if row["batch_size"] == size]
        lines = [{narrow.get(name, name): _short(row[name]) for name in columns} for row in rows]
        show(f"batch {size}: milliseconds a request", lines)


def _short(value: Any) -> Any:
    """A number with as many digits as the measurement carries."""
    if not isinstance(value, float):
        return value
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
