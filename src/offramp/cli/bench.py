"""`offramp bench`: is early exit faster than what one would run without it?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from offramp.cli.common import DataOptions, emit, limit_threads, note, pick_split, show
from offramp.cli.tune import policy_for


@dataclass(frozen=True)
class RaceOptions:
    """What is timed.

    Args:
        batch_sizes: texts a request.
        examples: texts, chosen by `seed` from `split`.
        split: the split they come from.
        repeats: timed rounds.
        seed: chooses the texts and their order.
    """

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    examples: int = 200
    split: str = "validation"
    repeats: int = 30
    seed: int = 0


def bench(
    model: Path,
    data: str,
    *,
    criterion: str = "confidence",
    policy: Path | None = None,
    max_accuracy_drop: float = 0.01,
    race: Annotated[RaceOptions, Parameter(name="*")] = RaceOptions(),
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Time a model with early exits against the same model to full depth: eager, ONNX Runtime, dynamic int8.

    For example `offramp bench runs/sweet movies`. All take part in every round, on the same texts, and every row tells
    the score beside the time.

    Args:
        model: folder that `offramp train` wrote.
        data: what the model was trained on; its calibration split gives the scales of int8.
        criterion: the exit rule; a model without a policy for it is tuned first.
        policy: a policy file, instead of the one beside the model.
        max_accuracy_drop: target of the tuning, where there is no policy yet.
        race: what is timed.
        output: folder of the exports and the record; by default `bench` inside the model's folder.
        reading: how to read the data.
        threads: CPU threads of every peer; by default as many as the process may use.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp._core.environment import usable_cores
    from offramp._core.records import write_record
    from offramp.engine.policy import Policy
    from offramp.export.bench import race as run
    from offramp.export.peers import Contest, prepare
    from offramp.export.run import Texts
    from offramp.model import load_model
    from offramp.model.encoding import TextEncoder

    started = datetime.now(UTC)
    found = reading.load(data)
    loaded = load_model(model)
    chosen = Policy.load(policy) if policy else policy_for(model, loaded, found, criterion, max_accuracy_drop)
    rows = pick_split(found, race.split, race.examples, race.seed)
    folder = output or model / "bench"
    prepare(model, folder, chosen, Texts(pick_split(found, "calibration", race.examples), rows))
    labels = rows["label"] if "label" in rows.column_names else None
    table = run(
        Contest(model, folder, threads or usable_cores()),
        TextEncoder.of(loaded).dataset(rows)[0],
        labels,
        metric=found.metrics[0],
        batch_sizes=race.batch_sizes,
        repeats=race.repeats,
        seed=race.seed,
    )
    config = {"data": data, "threads": threads or usable_cores(), "metric": found.metrics[0], **vars(race)}
    path = write_record(
        folder,
        command="bench",
        config=config,
        metrics={},
        seed=race.seed,
        tables={"bench": table},
        started=started,
    )
    shown = ("peer", "batch_size", "p50", "p95", "p99", "throughput", "speedup", "score", "peak_mib")
    narrow = {"batch_size": "batch", "throughput": "texts/s", "peak_mib": "MiB"}
    lines = [{narrow.get(name, name): _short(row[name]) for name in shown} for row in table]
    show("milliseconds a request; speed-up over eager full depth", lines)
    note(f"record: {path}")
    emit(json, {"record": str(path), "rows": table})


def _short(value: Any) -> Any:
    """A number with as many digits as the measurement carries."""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else value
    )
