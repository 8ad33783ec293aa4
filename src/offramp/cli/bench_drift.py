"""`offramp bench drift`: how soon the alarms of a service notice that its texts have changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from offramp._core.progress import track
from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    RuleOptions,
    Seed,
    Threads,
    finish_bench,
    limit_threads,
    load_for,
    note,
)
from offramp.cli.paths import PathOption, results_folder, writing
from offramp.serving.detector import EVERY

if TYPE_CHECKING:
    from offramp._core.trace import Trace
    from offramp.model.base import SegmentedModel


def bench_drift(
    model: PathOption,
    data: str,
    *,
    then: tuple[str, ...] = (),
    attacked: PathOption | None = None,
    rule: RuleOptions = RuleOptions(),
    split: str = "validation",
    texts: int = 5000,
    audit_share: float = 0.05,
    every: int = EVERY,
    runs: int = 20,
    seed: Seed = 0,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Replay streams that shift to other texts, and to attacked ones, through the alarms of `offramp serve`.

    For example `offramp bench drift runs/sweet movies --then tweets nyt --attacked runs/sweet/attack-same-word`. The
    first stage holds texts like the calibration's, so its alarms are false.

    Args:
        model: folder that `offramp train` wrote.
        data: the data that the model was trained on.
        then: further data with the same labels, in order.
        attacked: folder that `offramp attack` wrote, whose adversarial texts come last.
        split: of the data.
        texts: of each stage.
        audit_share: share of the texts that are also run to full depth.
        every: least mean number of texts between two false alarms.
        runs: number of streams.
        seed: draws the texts.
        output: folder of the record; by default `bench-drift` inside the model's folder.
    """
    limit_threads(threads)
    from offramp.attacks.result import AttackResult
    from offramp.bench.drift import watch_stream
    from offramp.data import check_fit

    started, folder = datetime.now(UTC), results_folder(model, "bench-drift", output)
    with writing(folder, "bench drift"):
        content = reading.load(data)
        loaded = load_for(model, content, "calibration", split, device="auto")
        policy = rule.of(model, loaded, content)
        others = {name: reading.load(name) for name in then}
        for name, other in others.items():
            check_fit(other, loaded.labels, loaded.kind, pair=loaded.pair, model=f"{model} on {name}")
        texts_by_stage = {
            name: columns(rows[split].to_dict()) for name, rows in {data: content, **others}.items()
        }
        if attacked is not None:
            attack = AttackResult.load(attacked).table.to_pydict()
            texts_by_stage[f"attacked {data}"] = columns(attack, "adversarial_")
        stages = {name: texts_trace(loaded, *read) for name, read in texts_by_stage.items()}
        note(f"texts by stage: {', '.join(f'{name} {len(trace)}' for name, trace in stages.items())}")
        sizes: dict[str, Any] = {"audit_share": audit_share, "every": every, "runs": runs}
        table = watch_stream(policy, stages, texts=texts, **sizes, seed=seed, progress=True)
        config = {"data": data, "split": split, **sizes}
        finish_bench(
            folder,
            "bench drift",
            {"drift": table},
            config | {"exit_layers": loaded.exit_layers, "criterion": policy.criterion.name},
            started,
            seed=seed,
            title="alarms on a stream that shifts",
            json_output=json,
        )


def columns(rows: Mapping[str, list[Any]], prefix: str = "") -> tuple[list[str], list[str] | None]:
    """Texts and second texts of the columns of a table; an attack on single texts has an empty second column."""
    pairs = rows.get(f"{prefix}text_pair")
    return rows[f"{prefix}text"], None if pairs is None or None in pairs else pairs


def texts_trace(model: SegmentedModel, texts: list[str], pairs: list[str] | None) -> Trace:
    """What every exit says about some texts."""
    from offramp.engine.segments import trace_segments
    from offramp.inference.segments import TorchSegments
    from offramp.model.encoding import TextEncoder

    encoder = TextEncoder.of(model)
    bar = partial(track, title="run every exit")
    return trace_segments(TorchSegments(model), encoder(texts, pairs), encoder.pad_values, track=bar)
