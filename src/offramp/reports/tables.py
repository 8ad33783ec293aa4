"""The tables of a report on runs: models, exits, curves, comparisons and attacks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from offramp.evaluation.arrow_tables import rows_where, to_pandas
from offramp.evaluation.compare import DIFFERENCE
from offramp.evaluation.curves import RANGES, area
from offramp.reports.bench_tables import (
    bench_attack_table,
    bench_table,
    bench_train_table,
    drift_table,
    limits_table,
    promises_table,
    stream_table,
)
from offramp.reports.contents import ReportContents, ReportSection
from offramp.reports.reliability import calibration_table
from offramp.reports.service_tables import service_attack_table, service_latency_table, service_table
from offramp.reports.text_table import NOTHING, TextTable, change, interval, number

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BRACKETS = "Brackets: 95 % bootstrap intervals."
EFFORT = {
    "words_changed": "words changed",
    "similarity": "similarity",
    "forward_queries": "forward queries",
    "gradient_queries": "gradient queries",
    "seconds": "seconds",
}
POLICY_NUMBERS = ("score", "full", "drop", "cost", "depth", "layer_speedup")


def all_tables(contents: ReportContents) -> dict[str, TextTable]:
    """Every table that has rows, by file name, with the prefix of its section in front."""
    tables = {"runs": runs_table(contents)}
    for section in contents.sections:
        for name, make in TABLES.items():
            table = make(section)
            if section.prefix:  # several sections: each title names its data
                table = replace(table, title=f"{table.title}: {section.data or 'other'}")
            tables[f"{section.prefix}{name}"] = table
    return {name: table for name, table in tables.items() if table.rows}


def runs_table(contents: ReportContents) -> TextTable:
    """All runs."""
    rows = []
    for run in contents.runs:
        git = run.record["git"] or {}
        commit = str(git.get("commit", NOTHING))[:10] + (" (dirty)" if git.get("dirty") else "")
        started = str(run.record["started"])[:16].replace("T", " ")
        seconds = number(float(run.record["seconds"]), 0)
        rows.append((run.name, run.command, run.data or NOTHING, str(run.seed), started, seconds, commit))
    header = ("run", "command", "data", "seed", "started", "seconds", "commit")
    return TextTable("Runs", header, tuple(rows), words=3)


def policies_table(section: ReportSection) -> TextTable:
    """Every model at the threshold of its policy."""
    rows = []
    for label, run in section.labelled("policy"):
        cells = {row["name"]: _interval(row) for row in run.tables["policy"].to_pylist()}
        threshold = run.get("threshold")
        rule = str(run.get("criterion", NOTHING))
        if isinstance(threshold, int | float) and not math.isnan(threshold):
            rule += f", {threshold:.4g}"
        rows.append((label, rule, *(cells.get(name, NOTHING) for name in POLICY_NUMBERS)))
    header = ("model", "exit rule", "score", "full model", "drop", "cost", "depth", "layer speed-up")
    note = f"Cost: FLOPs as a share of the full model's. Depth: mean exit layer. {BRACKETS}"
    return TextTable("Models under their policies", header, tuple(rows), note, words=2)


def exits_table(section: ReportSection) -> TextTable:
    """The score of every exit, taken always."""
    frame, rows, layers = section.frame("per_exit"), (), []
    if frame is not None:
        frame["cell"] = [_interval(row, "score") for row in frame.to_dict("records")]
        wide = _wide(frame, ["label", "metric"], "layer", "cell").sort_index(axis="columns")
        rows, layers = tuple(wide.reset_index().itertuples(index=False, name=None)), list(wide.columns)
    header = ("model", "metric", *(f"layer {layer}" for layer in layers))
    return TextTable("Every exit by itself", header, rows, BRACKETS, words=2)


def _wide(frame: pd.DataFrame, index: str | list[str], columns: str, values: str | list[str]) -> pd.DataFrame:
    """Cells of a long table side by side, in order of appearance, with dashes where there are none."""
    return frame.pivot_table(
        index=index, columns=columns, values=values, aggfunc="last", sort=False, dropna=False
    ).fillna(NOTHING)


def areas_table(section: ReportSection) -> TextTable:
    """Areas of the speed-accuracy curves, averaged over the models of a method."""
    rows = []
    for metric, methods in section.curves.items():
        for label, curves in methods.items():
            means = [sum(area(curve, limits) for curve in curves) / len(curves) for limits in RANGES.values()]
            rows.append((label, metric, str(len(curves)), *(number(mean) for mean in means)))
    spans = (f"{name} (cost {low:g}–{high:g})" for name, (low, high) in RANGES.items())
    note = "Mean score over a range of costs; below its cheapest point a curve falls to the commonest answer."
    header = ("method", "metric", "models", *spans)
    return TextTable("Areas of the speed–accuracy curves", header, tuple(rows), note, words=2)


def comparison_table(section: ReportSection) -> TextTable:
    """Scores and areas of several methods, with their differences to the baseline."""
    header: tuple[str, ...] = ("where",)
    rows = ()
    frame = section.frame("scores")
    if frame is not None:
        frame["shown"] = [number(score) for score in frame["score"]]
        bounds = frame[[*DIFFERENCE]].itertuples(index=False, name=None)
        frame["gap"] = [interval(*difference, sign=True) for difference in bounds]
        wide = _wide(frame, "place", "method", ["shown", "gap"])
        methods = list(frame["method"].unique())
        compared = set(frame.loc[frame["difference"].notna(), "method"])
        against = [method for method in methods if method in compared]
        gaps = (f"{method} − {' or '.join(m for m in methods if m not in against)}" for method in against)
        header = ("where", *methods, *gaps)
        cells = wide[[*(("shown", method) for method in methods), *(("gap", method) for method in against)]]
        rows = tuple(cells.itertuples(name=None))
    note = f"Differences are paired over the same examples. {BRACKETS}"
    return TextTable("Methods compared", header, rows, note)


def winners_table(section: ReportSection) -> TextTable:
    """The best method at each exit and over each range of costs."""
    rows = []
    for _, row in section.rows("winners"):
        lead = interval(row["lead"], row["lead_low"], row["lead_high"], sign=True)
        rows.append((row["place"], row["best"], row["second"], "yes" if row["decided"] else "no", lead))
    header = ("where", "best", "second", "decided", "lead")
    note = "Decided: the interval of the lead excludes zero."
    return TextTable("Who wins where", header, tuple(rows), note, words=4)


def robustness_table(section: ReportSection) -> TextTable:
    """What each attack takes away, and its effort."""
    drops = ("efficiency drop", "gain drop")
    header = ("attack", "examples", "depth", "cost", "score", *drops, *EFFORT.values())
    reasons = {
        f"{attack.label}: {why}." for attack in section.attacks for why in attack.robustness.reasons.values()
    }
    note = (
        "Clean → adversarial. Efficiency drop: share of the saved compute that is lost. Words, queries and "
        f"seconds are means per example. {BRACKETS}"
    )
    rows = []
    for attack in section.attacks:
        numbers = attack.robustness
        digits = {"depth": 2, "cost": 3, attack.metric: 3}
        changes = [change(numbers[f"clean_{n}"], numbers[f"adversarial_{n}"], d) for n, d in digits.items()]
        lost = [_interval(vars(numbers.intervals[name])) for name in ("efficiency_drop", "gain_drop")]
        effort = [number(numbers[name], 3 if name == "similarity" else 1) for name in EFFORT]
        rows.append((attack.label, str(numbers.examples), *changes, *lost, *effort))
    return TextTable("Under attack", header, tuple(rows), " ".join([note, *sorted(reasons)]))


def attacks_table(section: ReportSection) -> TextTable:
    """More numbers of each attack."""
    rows = []
    for attack in section.attacks:
        numbers = attack.robustness
        shares = [number(numbers[name]) for name in ("success", "reached_last", "words_changed_share")]
        sides = [(numbers[f"clean_{n}"], numbers[f"adversarial_{n}"]) for n in ("layer_speedup", "efficacy")]
        rows.append((attack.label, *shares, *(change(*side) for side in sides)))
    header = ("attack", "success", "reached last", "share of words changed", "layer speed-up", "efficacy")
    note = "Success: left later than the clean text. Efficacy: area under cost and share exited, 1 at best."
    return TextTable("More on the attacks", header, tuple(rows), note)


def timing_table(section: ReportSection) -> TextTable:
    """Measured speed."""
    rows = []
    for label, row in section.rows("timing"):
        ratio = interval(row["time_speedup"], row["speedup_low"], row["speedup_high"], 2)
        times = [number(row[name]) for name in ("threshold", "seconds", "full_seconds")]
        rows.append((label, *times, ratio))
    header = ("model", "threshold", "seconds", "seconds at full depth", "speed-up")
    note = "Medians over interleaved rounds, same batch size and backend; brackets: smallest and largest."
    return TextTable("Measured speed", header, tuple(rows), note)


def exit_scores(section: ReportSection, metric: str) -> dict[str, pa.Table]:
    """The scores of every exit by model, for a figure: rows with `layer`, `score`, `low` and `high`.

    The scores of a comparison, over all models of a method, replace those of the single models in it.
    """
    import pyarrow as pa

    scores: dict[str, pa.Table] = {}
    for _, run in section.labelled("scores"):
        if run.get("metric", "accuracy") != metric:
            continue
        frame = to_pandas(run.tables["scores"])
        layers = frame["place"].str.extract(r"^layer (\d+)$", expand=False)
        exits = frame[layers.notna()].assign(layer=layers.dropna().astype(int))
        for method, rows in exits.groupby("method", sort=False):
            columns = rows[["layer", "score", "low", "high"]]
            scores[str(method)] = pa.Table.from_pandas(columns, preserve_index=False)
    covered = section.covered if scores else frozenset[str]()
    for label, run in section.labelled("per_exit"):
        single = rows_where(run.tables["per_exit"], "metric", metric)
        if single.num_rows and run.record["path"] not in covered:
            scores[label] = single
    return scores


def _interval(row: dict[str, Any], name: str = "estimate") -> str:
    return interval(row[name], row["low"], row["high"])


TABLES: dict[str, Callable[[ReportSection], TextTable]] = {
    "policies": policies_table,
    "exits": exits_table,
    "areas": areas_table,
    "comparison": comparison_table,
    "winners": winners_table,
    "robustness": robustness_table,
    "attacks": attacks_table,
    "calibration": lambda section: calibration_table(
        {(label,): run.tables["reliability"] for label, run in section.labelled("reliability")}, ("model",)
    ),
    "timing": timing_table,
    "bench": bench_table,
    "bench-limits": limits_table,
    "bench-train": bench_train_table,
    "bench-attack": bench_attack_table,
    "stream": stream_table,
    "promises": promises_table,
    "drift": drift_table,
    "service": service_table,
    "service-latency": service_latency_table,
    "service-attack": service_attack_table,
}
