"""`offramp bench`: compare early exit with full-depth baselines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from offramp._core.records import write_record
from offramp.bench.speed import BenchConfig
from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    RuleOptions,
    Threads,
    emit,
    limit_threads,
    load_for,
    note,
    refuse_calibration,
    show,
)
from offramp.cli.paths import PathOption, results_folder, writing

if TYPE_CHECKING:
    from offramp.bench.baselines import BenchArtifacts
    from offramp.data.text_data import TextData
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

SCALED, COMPARED = 128, 64  # texts that int8 scales are taken from, and texts on which exports are compared


def bench(
    model: PathOption,
    data: str,
    *,
    rule: RuleOptions = RuleOptions(),
    config: Annotated[BenchConfig, Parameter(name="*")] = BenchConfig(),
    split: str = "validation",
    examples: int = 200,
    optimum: PathOption | None = None,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Time a model with early exits against full depth in every runtime, smaller models, earlier designs, and TF-IDF.

    For example `offramp bench runs/sweet movies`. Every round times all baselines on the same texts. Every row reports
    the score beside the time. `offramp report` draws the two against each other.

    Args:
        model: folder that `offramp train` wrote.
        data: the data that the model was trained on. Its calibration split gives the scales of int8; TF-IDF with a
            linear classifier learns from its training split.
        split: the split that the texts come from.
        examples: number of texts, chosen by `--seed`.
        optimum: the Python of another environment, with optimum and sentence-transformers. Their own int8 exports of
            the whole model then take part; they need older packages than this one, so they cannot live beside it.
        output: folder of the exports and the record; by default `bench` inside the model's folder. Exports of the same
            model, policy and texts are reused.
    """
    count = limit_threads(threads)
    from offramp.bench.baselines import BenchArtifacts
    from offramp.bench.optimum_peers import OptimumEnvironment, installed_versions

    refuse_calibration(split)
    environment = OptimumEnvironment.of(optimum, installed_versions(optimum)) if optimum else None
    started, folder = datetime.now(UTC), results_folder(model, "bench", output)
    with writing(folder, "bench"):
        texts = reading.load(data)
        loaded = load_for(model, texts, "calibration", split)
        policy = rule.of(model, loaded, texts)
        rows = texts.sample(split, examples, config.seed)
        readers = _text_peers(loaded, policy.exit_layers)
        others = environment.fitting(loaded) if environment else None
        artifacts = BenchArtifacts(model, folder, count, policy.exit_layers, readers, others, config.drops)
        _prepare(artifacts, loaded, policy, texts, rows, config, rule.max_accuracy_drop)
        metric = texts.metrics[0]
        table, metrics = _measure(artifacts, loaded, rows, config, metric)
        rule_settings = {"criterion": policy.criterion.name, "threshold": policy.criterion.threshold}
        settings = {"data": data, "threads": count, "metric": metric, **vars(config), "split": split}
        settings |= {"examples": examples, **rule_settings, "exit_layers": policy.exit_layers}
        if environment:
            settings["optimum"] = environment.versions
        show_benchmark(table)
        cold = metrics["cold_start_seconds"]
        note(f"first answer of a fresh process, from the exported int8 folder: {cold:.2f} s")
        path = write_record(
            folder,
            command="bench",
            config=settings,
            metrics=metrics,
            seed=config.seed,
            tables={"bench": table},
            started=started,
        )
        note(f"record: {path}")
        emit(json, {"record": str(path), "cold_start_seconds": cold, "rows": table})


def _prepare(
    artifacts: BenchArtifacts,
    model: SegmentedModel,
    policy: Policy,
    data: TextData,
    rows: Any,
    config: BenchConfig,
    drop: float,
) -> None:
    """Export and fit what the chosen baselines are made from; notes name those that another environment lacks."""
    from offramp.bench.artifacts import prepare, prepare_optimum, prepare_text_peers, tune_points
    from offramp.bench.speed import check_baselines
    from offramp.bench.text_peers import columns
    from offramp.exporting.run import Texts

    chosen = check_baselines(artifacts, config, len(rows))  # before the exports, which take minutes
    note(f"exports for every baseline: {artifacts.work}")
    calibration = data.sample("calibration", SCALED)
    compared = rows.select(range(min(COMPARED, len(rows))))
    prepare(artifacts.model, artifacts.work, policy, Texts(calibration, compared), progress=True)
    tune_points(artifacts, model, data, policy, progress=True)
    reading_words = [name for name, baseline in chosen.items() if baseline.kind == "text"]
    prepare_text_peers(artifacts.work, model, data, drop, reading_words, progress=True)
    if (others := artifacts.optimum) and chosen.keys() & set(others.peers):
        for name, reason in others.lacking.items():
            note(f"{name} is left out: {reason}")
        prepare_optimum(artifacts.work, model, columns(calibration), others)


def _text_peers(model: SegmentedModel, layers: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the baselines that read words, and a note on what is not installed."""
    from offramp.bench.text_peers import PACKAGES, text_peers

    names = text_peers(model.kind, layers)
    for name, packages in PACKAGES.items() if model.kind == "classification" else ():
        if name not in names:
            note(f"{name} is left out: pip install {' '.join(packages)}")
    return names


def _measure(
    artifacts: BenchArtifacts, model: SegmentedModel, rows: Any, config: BenchConfig, metric: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the benchmark, and what is measured beside them."""
    from offramp.bench.measures import OtherCpuLoad, cold_start
    from offramp.bench.speed import run_benchmark
    from offramp.bench.text_peers import columns
    from offramp.engine.batching import token_counts
    from offramp.engine.file_encoder import FileEncoder
    from offramp.engine.manifest import Manifest
    from offramp.model.encoding import TextEncoder

    int8 = artifacts.work / "int8"
    encodings = TextEncoder.of(model).dataset(rows)[0]
    encoder = FileEncoder(int8, Manifest.load(int8))
    texts = columns(rows)
    labels = rows["label"] if "label" in rows.column_names else None

    def tokenise(chosen: Any) -> Any:
        return encoder(*zip(*(texts[row] for row in chosen), strict=True))

    load = OtherCpuLoad()
    table = run_benchmark(
        artifacts,
        encodings,
        labels,
        config,
        texts=texts,
        metric=metric,
        tokenise=tokenise,
        progress=True,
        on_peer_error=lambda error: note(str(error)),
    )
    return table, {
        "cold_start_seconds": cold_start(int8, artifacts.threads, progress=True).p50,
        "other_cores_busy": load.cores(),
        "mean_tokens": float(token_counts(encodings).mean()),
    }


def show_benchmark(table: list[dict[str, Any]]) -> None:
    """The rows of a benchmark for people, a table for each batch size."""
    shown = ("peer", "p50", "p95", "p99", "throughput", "speedup", "faster", "cost", "share", "score")
    narrow = {"throughput": "texts/s", "speedup": "× eager", "faster": "× best full depth"}
    columns = (*shown, *(name for name in ("peak_mib", "joules") if any(row[name] for row in table)))
    for size in dict.fromkeys(row["batch_size"] for row in table):
        rows = [row for row in table if row["batch_size"] == size]
        lines = [{narrow.get(name, name): rounded(row[name]) for name in columns} for row in rows]
        show(f"batch {size}: milliseconds a request", lines)


def rounded(value: Any) -> Any:
    """A float as text with three significant digits."""
    if not isinstance(value, float):
        return value
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
