"""`offramp bench stream`: many texts through one engine, with speed and memory over time."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from offramp._core.environment import usable_cores
from offramp._core.progress import Update, progress
from offramp._core.records import write_record
from offramp.cli.common import DataOptions, JsonFlag, Seed, Threads, emit, note, show
from offramp.cli.paths import PathOption, writing


def bench_stream(
    folder: PathOption,
    data: str,
    *,
    texts: int = 100_000,
    modes: tuple[Literal["batches", "pools"], ...] = ("batches", "pools"),
    batch_size: int = 32,
    every: float = 5.0,
    split: str = "train",
    seed: Seed = 0,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Stream texts through an exported model, and sample throughput and resident memory.

    For example `offramp bench stream served movies --texts 1000000`. The texts of the split repeat, each time in a new
    order. The record is rewritten with every sample, so a stopped run keeps its samples. `offramp report` draws the
    series.

    Args:
        folder: folder that `offramp export` wrote, with a policy.
        data: the source of the texts.
        texts: number of texts to stream in each mode.
        modes: plain batches, or pools in which rows of several batches wait for each other.
        batch_size: rows run at once.
        every: seconds between two samples of speed and memory.
        split: the split of the data.
        seed: chooses the order of the texts.
        output: folder of the record; by default `bench-stream` beside the exported folder.
    """
    from offramp.bench.stream import MODES, flatness, stream_series
    from offramp.inference.engine import Engine

    started, target = datetime.now(UTC), output or folder.parent / "bench-stream"
    count = threads or usable_cores()
    config = {"data": data, "split": split, "texts": texts, "batch_size": batch_size, "threads": count}
    series: dict[str, list[dict[str, float]]] = {}

    def save() -> Path:
        return write_record(
            target,
            command="bench stream",
            config={**config, "every": every},
            metrics=drifts(series),
            seed=seed,
            tables={"stream": [{"mode": mode, **row} for mode, samples in series.items() for row in samples]},
            started=started,
        )

    def sampled(mode: str, update: Update, samples: list[dict[str, float]]) -> None:
        series[mode] = samples
        update(int(samples[-1]["texts"]), texts, "")
        save()

    with writing(target, "bench stream"):
        sources = texts_of(reading.load(data)[split])
        try:
            for mode in modes:
                engine = Engine(folder, batch_size=batch_size, threads=count, pools=MODES[mode])
                with progress(f"stream, {mode}", texts, timed=True) as update:
                    sample = partial(sampled, mode, update)
                    stream_series(engine, sources, count=texts, every=every, seed=seed, on_sample=sample)
        finally:  # a stopped stream, or a full disk: what was sampled is shown
            ends = {
                mode: {name: rows[-1][name] for name in ("texts", "seconds")} for mode, rows in series.items()
            }
            show("streamed", [{"mode": mode, **ends[mode], **flatness(series[mode])} for mode in series])
        path = save()
    note(f"record: {path}")
    emit(json, {"record": str(path), **drifts(series)})


def texts_of(rows: Any) -> list[Any]:
    """The texts of a split, or its pairs of texts."""
    texts = list(rows["text"])
    return list(zip(texts, rows["text_pair"], strict=True)) if "text_pair" in rows.column_names else texts


def drifts(series: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """How far speed and memory drifted, as metrics by mode and name."""
    from offramp.bench.stream import flatness

    return {
        f"{mode}_{name}": value
        for mode, samples in series.items()
        for name, value in flatness(samples).items()
    }
