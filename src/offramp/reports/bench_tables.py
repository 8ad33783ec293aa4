"""The tables of a report on benchmarks: speed, training steps, attacks, streams and guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.reports.contents import ReportSection
from offramp.reports.text_table import TextTable, change, interval, number

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, tuple[str, int]]  # heading → key of the row, digits

BENCH: Columns = {
    "p50, ms": ("p50", 2),
    "p95, ms": ("p95", 2),
    "p99, ms": ("p99", 2),
    "texts/s": ("throughput", 0),
    "× eager": ("speedup", 2),
    "× best full depth": ("faster", 2),
    "cost": ("cost", 3),
    "share of the ideal": ("share", 3),
    "score": ("score", 3),
    "peak MiB": ("peak_mib", 0),
}
LIMITS: Columns = {
    "constant": ("constant", 2),
    "all layers": ("layers", 2),
    "best full depth": ("best", 2),
    "cost": ("cost", 3),
    "free exits": ("least", 2),
    "ours-int8": ("taken", 2),
    "share in reach": ("reachable", 3),
    "share reached": ("reached", 3),
}
TRAINING: Columns = {
    "examples/s": ("examples_per_second", 0),
    "× plain": ("times_plain", 2),
    "activations, MiB": ("activation_mib", 0),
}
ATTACKING: Columns = {
    "CPU s": ("cpu_seconds", 1),
    "seconds": ("seconds", 1),
    "forward": ("forward", 0),
    "gradient": ("gradient", 1),
    "beforehand": ("prepared", 0),
    "words": ("words_changed", 1),
}
RISKS: Columns = {"mean risk": ("mean_risk", 3), "95 % below": ("high_risk", 3), "cost": ("cost", 3)}

SHIFTED: Columns = {
    "depth": ("depth", 2),
    "cost": ("cost", 3),
    "disagreement": ("disagreement", 3),
    "drift alarms": ("drift_alarmed", 2),
    "texts until it": ("drift_delay", 0),
    "audit alarms": ("audit_alarmed", 2),
    "texts until that": ("audit_delay", 0),
    "tuned again": ("retuned_disagreement", 3),
    "at cost": ("retuned_cost", 3),
}


def _cells(row: Mapping[str, Any], columns: Columns) -> list[str]:
    return [number(row[key], digits) for key, digits in columns.values()]


def bench_table(section: ReportSection) -> TextTable:
    """Every peer of every benchmark."""
    rows = []
    for label, row in section.rows("bench"):
        length = str(row["length"]) if row["length"] else "data"
        rows.append((label, row["peer"], str(row["batch_size"]), length, *_cells(row, BENCH)))
    note = "Share of the ideal: times faster than the fastest full-depth peer (by means), times the cost in FLOPs."
    return TextTable("Peers", ("model", "peer", "batch", "tokens", *BENCH), tuple(rows), note, words=2)


def limits_table(section: ReportSection) -> TextTable:
    """The speed that exits without overhead would reach."""
    frame, rows = section.frame("bench"), []
    if frame is not None:
        for (label, size, length), peers in frame.groupby(["label", "batch_size", "length"], sort=False):
            values = limits(peers)
            if values is not None:
                rows.append((label, str(size), str(length or "data"), *_cells(values, LIMITS)))
    note = (
        "Milliseconds per request. Constant and layers: a line through the mean times of the static int8 models; "
        "free exits: that line at the cost of our engine."
    )
    return TextTable("What limits early exits", ("model", "batch", "tokens", *LIMITS), tuple(rows), note)


def limits(peers: pd.DataFrame) -> dict[str, float] | None:
    """The limit that the static models of a benchmark set to a model with early exits.

    Their times lie on a line over their layers. Its constant (tokenisation, embeddings, one head, the call) is part
    of every request, wherever it leaves. An exit without any overhead would take `least`, so that `reachable` is the
    largest share of the ideal for this model.

    Args:
        peers: rows of a `bench` table, of one batch size and length.

    Returns:
        Milliseconds a request: `constant`, `layers` for all layers, `best` of the full-depth peers, `least` at the
        `cost` of our int8 engine (a share of the full model's), and `taken` by it; the shares `reachable` and
        `reached`. None where our int8 engine or the static int8 models in the same runtime are missing.
    """
    whole = "ort-static-int8-full"
    static = peers[(peers["kind"] == "cut") | (peers["peer"] == whole)]
    engines = peers[peers["peer"] == "ours-int8"].to_dict("records")
    if not engines or whole not in set(peers["peer"]) or len(static) < 3:
        return None
    ours = engines[-1]
    layers, constant = np.polyfit(static["cost"], static["mean"], 1)
    best = peers.loc[peers["kind"] == "full", "mean"].min()
    least = constant + layers * ours["cost"]
    return {
        "constant": constant,
        "layers": layers,
        "best": best,
        "cost": ours["cost"],
        "least": least,
        "taken": ours["mean"],
        "reachable": best / least * ours["cost"],
        "reached": ours["share"],
    }


def bench_train_table(section: ReportSection) -> TextTable:
    """The time and memory of a training step."""
    rows = []
    for label, row in section.rows("bench_train"):
        seconds = interval(row["seconds"], row["lowest"], row["highest"])
        rows.append((label, row["name"].replace("_", " "), seconds, *_cells(row, TRAINING)))
    header = ("run", "training", "seconds a step", *TRAINING)
    note = "Medians over rounds; brackets: lowest and highest round. × plain: paired by round."
    return TextTable("Training steps", header, tuple(rows), note, words=2)


def promises_table(section: ReportSection) -> TextTable:
    """How often thresholds with a guarantee keep it."""
    rows = []
    for label, row in section.rows("promises"):
        stated = "on average" if row["delta"] is None else f"with probability {1 - row['delta']:g}"
        limit = f"{row['alpha']:g}, {stated}"
        held = f"{round(row['held'] * row['splits'])} of {row['splits']}"
        own = (
            ", own thresholds" if row.get("thresholds") == "own" else ""
        )  # older records have only shared ones
        names = (label, row["criterion"], row["guarantee"].replace("_", " ") + own)
        rows.append((*names, limit, held, *_cells(row, RISKS), "yes" if row["kept"] else "no"))
    header = ("model", "rule", "guarantee", "at most", "held in splits", *RISKS, "kept")
    note = (
        "Risks are measured on the rows that a split leaves out; conformal promises speak of the mean risk."
    )
    return TextTable("Promises on rows left out", header, tuple(rows), note, words=4)


def bench_attack_table(section: ReportSection) -> TextTable:
    """The effort of attacks, beside the work pattern of the released code."""
    rows = []
    for label, row in section.rows("bench_attack"):
        depths = change(row["clean_depth"], row["depth"], 2)
        # Records of the first version have no processor time and no intervals.
        row = (
            dict.fromkeys(("cpu_seconds", "words_changed", "lowest", "highest", "median_times_faster")) | row
        )
        faster = interval(row["times_faster"], row["lowest"], row["highest"], 1)
        names = (label, row["name"], str(row["examples"]), depths)
        rows.append((*names, *_cells(row, ATTACKING), faster, number(row["median_times_faster"], 1)))
    header = ("model", "attack", "examples", "depth", *ATTACKING, "times faster", "median")
    note = (
        "Passes and changed words are means per example, times are totals; beforehand: short texts run once for all "
        "of them, their time counted; depth: clean → adversarial. Times faster: ratio of the processor times of all "
        "examples, with 95 % bootstrap intervals over examples; median: of the ratios of single examples."
    )
    return TextTable("Attacks timed", header, tuple(rows), note, words=2)


def stream_table(section: ReportSection) -> TextTable:
    """The state of every stream at its end."""
    rows = []
    for label, run in section.labelled("stream"):
        ends = {row["mode"]: row for row in run.tables["stream"].to_pylist()}  # the last row of each mode
        for mode, end in ends.items():
            speed = (number(end["texts"] / end["seconds"], 0), number(run.get(f"{mode}_throughput_change")))
            memory = (number(end["resident_mib"], 0), number(run.get(f"{mode}_memory_growth_mib")))
            rows.append((label, mode, str(end["texts"]), number(end["seconds"], 0), *speed, *memory))
    speeds = ("texts", "seconds", "texts/s", "change of speed")
    header = ("model", "mode", *speeds, "resident MiB", "growth, MiB")
    note = "Change and growth: second half against first, last look against first, after one minute."
    return TextTable("Streams", header, tuple(rows), note, words=2)


def drift_table(section: ReportSection) -> TextTable:
    """When alarms notice that the texts have changed."""
    rows = [
        (label, row["stage"], f"{row['promise']:.3f}", *_cells(row, SHIFTED))
        for label, row in section.rows("drift")
    ]
    note = (
        "Each stream passes all stages in their order. Alarms: share of the streams with one in the stage; until it: "
        "the median over the streams. Disagreement with the full model, before and after the policy is tuned on what "
        "the audit saw in the stage; it promised at most this much on texts like those of the first stage."
    )
    return TextTable("Alarms", ("model", "texts", "promised", *SHIFTED), tuple(rows), note, words=2)
