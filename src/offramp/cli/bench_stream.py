"""`offramp bench stream`: many texts through one engine, with its speed and memory over time."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from offramp._core.records import write_record
from offramp.cli.common import DataOptions, Seed, emit, note, show


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
    again, each time in a new order. The record is written anew at every look: what was seen is kept, whatever stops
    the run. `offramp report` draws the series.

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
    from offramp.bench.stream import MODES, flatness, stream_series
    from offramp.inference.engine import Engine

    started = datetime.now(UTC)
    count = threads or usable_cores()
    rows = reading.load(data)[split]
    sources = list(rows["text"])
    if "text_pair" in rows.column_names:
        sources = list(zip(sources, rows["text_pair"], strict=True))
    config = {"data": data, "split": split, "texts": texts, "batch_size": batch_size, "threads": count}
    keep = partial(
        write_record,
        output or folder.parent / "bench-stream",
        command="bench stream",
        config={**config, "every": every},
        seed=seed,
        started=started,
    )
    table: list[dict[str, Any]] = []
    lines = []
    metrics: dict[str, float] = {}
    for mode in modes:

        def save(series: list[dict[str, float]], mode: str = mode) -> Path:
            drift = {f"{mode}_{name}": value for name, value in flatness(series).items()}
            return keep(
                metrics=metrics | drift, tables={"stream": table + [{"mode": mode, **row} for row in series]}
            )

        engine = Engine(folder, batch_size=batch_size, threads=count, pools=MODES[mode])
        series = stream_series(engine, sources, count=texts, every=every, seed=seed, on_sample=save)
        table.extend({"mode": mode, **row} for row in series)
        drift = flatness(series)
        metrics.update({f"{mode}_{name}": value for name, value in drift.items()})
        lines.append({"mode": mode, "texts": texts, "seconds": series[-1]["seconds"], **drift})
    path = keep(metrics=metrics, tables={"stream": table})
    note(f"record: {path}")
    show("streamed", lines)
    emit(json, {"record": str(path), **metrics})
