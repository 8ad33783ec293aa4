"""`offramp bench stream`: many texts through one engine, with its speed and memory over time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from offramp.cli.common import DataOptions, Seed, emit, record_bench, show


def bench_stream(
    folder: Path,
    data: str,
    *,
    texts: int = 100_000,
    modes: tuple[Literal["batches", "pools"], ...] = ("batches", "pools"),
    batch_size: int = 32,
    every: float = 5.0,
    split: str = "train",
    seed: Seed = 0,
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Stream texts through an exported model, and note throughput and resident memory as it goes.

    For example `offramp bench stream served movies --texts 1000000`. The texts of the split come round again and
    again, each time in a new order. `offramp report` draws the series.

    Args:
        folder: what `offramp export` wrote, with a policy.
        data: where the texts come from.
        texts: how many are streamed in each mode.
        modes: plain batches, or pools in which rows of several batches wait for each other.
        batch_size: rows run at once.
        every: seconds between two looks at speed and memory.
        split: the split of the data.
        seed: of the order of the texts.
        output: folder of the record; by default `bench-stream` beside the exported folder.
        reading: how to read the data.
        threads: CPU threads; by default as many as the process may use.
        json: print one JSON object on stdout.
    """
    from offramp._core.environment import usable_cores
    from offramp.export.stream import MODES, flatness, stream_series
    from offramp.inference.engine import Engine

    started = datetime.now(UTC)
    count = threads or usable_cores()
    rows = reading.load(data)[split]
    found = list(rows["text"])
    if "text_pair" in rows.column_names:
        found = list(zip(found, rows["text_pair"], strict=True))
    table, lines = [], []
    metrics: dict[str, float] = {}
    for mode in modes:
        engine = Engine(folder, batch_size=batch_size, threads=count, pools=MODES[mode])
        series = stream_series(engine, found, count=texts, every=every, seed=seed)
        table += [{"mode": mode, **row} for row in series]
        told = flatness(series)
        metrics |= {f"{mode}_{name}": value for name, value in told.items()}
        lines.append({"mode": mode, "texts": texts, "seconds": series[-1]["seconds"], **told})
    config = {"data": data, "split": split, "texts": texts, "batch_size": batch_size, "threads": count}
    target = output or folder.parent / "bench-stream"
    config["every"] = every
    path = record_bench(
        target, "bench stream", {"stream": table}, config, started, seed=seed, metrics=metrics
    )
    show("streamed", lines)
    emit(json, {"record": str(path), **metrics})
