"""The tables of a report, made from the records of a study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from offramp.evaluation.areas import RANGES, area
from offramp.evaluation.arrow_tables import from_rows, rows_where
from offramp.reports.contents import AttackRun, ReportContents, ReportSection
from offramp.reports.reliability import calibration_table
from offramp.reports.speed import limits
from offramp.reports.text_table import NOTHING, TextTable, change, interval, is_number, number

if TYPE_CHECKING:
    import pyarrow as pa

BRACKETS = "Brackets: 95 % bootstrap intervals."
TRAINING = {"examples_per_second": 0, "times_plain": 2, "activation_mib": 0}
ATTACKING = {"seconds": 1, "forward": 0, "gradient": 1, "prepared": 0, "model_share": 2, "times_faster": 1}
EFFORT = {
    "words_changed": "words changed",
    "similarity": "similarity",
    "forward_queries": "forward queries",
    "gradient_queries": "gradient queries",
    "seconds": "seconds",
}


def all_tables(study: ReportContents) -> dict[str, TextTable]:
    """Every table that the study has content for, by file name; parts' tables have their prefix in front."""
    made = {"runs": runs_table(study)}
    for part in study.parts:
        made |= {f"{part.prefix}{name}": _titled(table(part), part) for name, table in PARTS.items()}
    return {name: table for name, table in made.items() if table.rows}


def _titled(table: TextTable, part: ReportSection) -> TextTable:
    """The table with the data in its title, where there are several."""
    return replace(table, title=f"{table.title}: {part.data or 'other'}") if part.prefix else table


def runs_table(study: ReportContents) -> TextTable:
    """What was run."""
    header = ("run", "command", "data", "seed", "started", "seconds", "commit")
    rows = tuple(
        (
            run.name,
            run.command,
            run.data or NOTHING,
            str(run.seed),
            str(run.record["started"])[:16].replace("T", " "),
            number(float(run.record["seconds"]), 0),
            _commit(run.record["git"]),
        )
        for run in study.runs
    )
    return TextTable("Runs", header, rows, words=3)


def policies_table(part: ReportSection) -> TextTable:
    """What the chosen thresholds give."""
    names = ("score", "full", "drop", "cost", "depth", "layer_speedup")
    rows = []
    for label, run in part.labelled("policy"):
        found = {row["name"]: _interval(row) for row in run.tables["policy"].to_pylist()}
        threshold = run.get("threshold")
        rule = str(run.get("criterion", NOTHING)) + (f", {threshold:.4g}" if is_number(threshold) else "")
        rows.append((label, rule, *(found.get(name, NOTHING) for name in names)))
    header = ("model", "exit rule", "score", "full model", "drop", "cost", "depth", "layer speed-up")
    note = f"Cost: FLOPs as a share of the full model's. Depth: mean exit layer. {BRACKETS}"
    return TextTable("Models under their policies", header, tuple(rows), note, words=2)


def exits_table(part: ReportSection) -> TextTable:
    """The score of every exit, taken always."""
    layers: dict[int, None] = {}
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for label, run in part.labelled("per_exit"):
        for row in run.tables["per_exit"].to_pylist():
            layers[row["layer"]] = None
            cells.setdefault((label, row["metric"]), {})[row["layer"]] = _interval(row, "score")
    columns = sorted(layers)
    rows = tuple((*key, *(found.get(layer, NOTHING) for layer in columns)) for key, found in cells.items())
    header = ("model", "metric", *(f"layer {layer}" for layer in columns))
    return TextTable("Every exit by itself", header, rows, BRACKETS, words=2)


def areas_table(part: ReportSection) -> TextTable:
    """Areas of the speed-accuracy curves, averaged over the models of a method."""
    rows = []
    for metric, methods in part.curves.items():
        for label, curves in methods.items():
            means = [sum(area(c, limits) for c in curves) / len(curves) for limits in RANGES.values()]
            rows.append((label, metric, str(len(curves)), *(number(mean) for mean in means)))
    spans = (f"{name} (cost {low:g}–{high:g})" for name, (low, high) in RANGES.items())
    note = "Mean score over a range of costs; below its cheapest point a curve falls to the commonest answer."
    header = ("method", "metric", "models", *spans)
    return TextTable("Areas of the speed–accuracy curves", header, tuple(rows), note, words=2)


def comparison_table(part: ReportSection) -> TextTable:
    """Scores and areas of several methods, place by place, with the differences to the baseline."""
    rows = [row for run in part.runs if "scores" in run.tables for row in run.tables["scores"].to_pylist()]
    found = {(row["place"], row["method"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    against = [m for m in methods if any(is_number(row["difference"]) for row in rows if row["method"] == m)]
    lines = []
    for place in dict.fromkeys(row["place"] for row in rows):
        scores = [number(found.get((place, m), {}).get("score")) for m in methods]
        lines.append((place, *scores, *(_difference(found.get((place, m))) for m in against)))
    gaps = (f"{method} − {' or '.join(m for m in methods if m not in against)}" for method in against)
    note = f"Differences are paired over the same examples. {BRACKETS}"
    return TextTable("Methods compared", ("where", *methods, *gaps), tuple(lines), note)


def _difference(row: dict[str, Any] | None) -> str:
    if row is None or not is_number(row["difference"]):
        return NOTHING
    return interval(row["difference"], row["difference_low"], row["difference_high"], sign=True)


def winners_table(part: ReportSection) -> TextTable:
    """Who wins where."""
    rows = []
    for run in part.runs:
        for row in run.tables["winners"].to_pylist() if "winners" in run.tables else ():
            lead = interval(row["lead"], row["lead_low"], row["lead_high"], sign=True)
            rows.append((row["place"], row["best"], row["second"], "yes" if row["decided"] else "no", lead))
    header = ("where", "best", "second", "decided", "lead")
    note = "Decided: the interval of the lead excludes zero."
    return TextTable("Who wins where", header, tuple(rows), note, words=4)


def robustness_summary_table(part: ReportSection) -> TextTable:
    """What each attack takes away, and what it spends."""
    header = (
        "attack",
        "examples",
        "depth",
        "cost",
        "score",
        "efficiency drop",
        "gain drop",
        *EFFORT.values(),
    )
    reasons = {f"{attack.label}: {why}." for attack in part.attacks for why in attack.found.reasons.values()}
    note = (
        "Clean → adversarial. Efficiency drop: share of the saved compute that is lost. Words, queries and "
        f"seconds are means per example. {BRACKETS}"
    )
    rows = tuple(_robustness_row(attack) for attack in part.attacks)
    return TextTable("Under attack", header, rows, " ".join([note, *sorted(reasons)]))


def _robustness_row(attack: AttackRun) -> tuple[str, ...]:
    found = attack.found
    sides = {"depth": 2, "cost": 3, attack.metric: 3}
    told = [change(found[f"clean_{n}"], found[f"adversarial_{n}"], digits) for n, digits in sides.items()]
    drops = [_interval(vars(found.intervals[name])) for name in ("efficiency_drop", "gain_drop")]
    effort = [number(found[name], 3 if name == "similarity" else 1) for name in EFFORT]
    return (attack.label, str(found.examples), *told, *drops, *effort)


def attacks_table(part: ReportSection) -> TextTable:
    """More numbers of each attack."""
    rows = []
    for attack in part.attacks:
        found = attack.found
        shares = [number(found[name]) for name in ("success", "reached_last", "words_changed_share")]
        sides = [(found[f"clean_{n}"], found[f"adversarial_{n}"]) for n in ("layer_speedup", "efficacy")]
        rows.append((attack.label, *shares, *(change(*side) for side in sides)))
    header = ("attack", "success", "reached last", "share of words changed", "layer speed-up", "efficacy")
    note = "Success: left later than the clean text. Efficacy: area under cost and share exited, 1 at best."
    return TextTable("More on the attacks", header, tuple(rows), note)


def timing_table(part: ReportSection) -> TextTable:
    """Measured speed."""
    rows = []
    for label, run in part.labelled("timing"):
        for row in run.tables["timing"].to_pylist():
            ratio = interval(row["time_speedup"], row["speedup_low"], row["speedup_high"], 2)
            times = [number(row[name]) for name in ("threshold", "seconds", "full_seconds")]
            rows.append((label, *times, ratio))
    header = ("model", "threshold", "seconds", "seconds at full depth", "speed-up")
    note = "Medians over interleaved rounds, same batch size and backend; brackets: smallest and largest."
    return TextTable("Measured speed", header, tuple(rows), note)


def reliability_errors_table(part: ReportSection) -> TextTable:
    """Calibration errors of the exits, before and after temperatures."""
    named: dict[tuple[str, ...], pa.Table] = {
        (label,): run.tables["reliability"] for label, run in part.labelled("reliability")
    }
    return calibration_table(named, ("model",))


def bench_table(part: ReportSection) -> TextTable:
    """Every peer of every bench."""
    names = ("p50", "p95", "p99", "throughput", "speedup", "faster", "cost", "share", "score", "peak_mib")
    digits = {"throughput": 0, "peak_mib": 0, "p50": 2, "p95": 2, "p99": 2, "speedup": 2, "faster": 2}
    rows = []
    for label, run in part.labelled("bench"):
        for row in run.tables["bench"].to_pylist():
            length = str(row["length"]) if row["length"] else "data"
            values = (number(row[name], digits.get(name, 3)) for name in names)
            rows.append((label, row["peer"], str(row["batch_size"]), length, *values))
    header = ("model", "peer", "batch", "tokens", "p50, ms", "p95, ms", "p99, ms", "texts/s")
    rest = ("× eager", "× best full depth", "cost", "share of the ideal", "score", "peak MiB")
    note = "Share of the ideal: times faster than the fastest full-depth peer (by means), times the cost in FLOPs."
    return TextTable("Peers", (*header, *rest), tuple(rows), note, words=2)


def limits_table(part: ReportSection) -> TextTable:
    """How far an exit that costs nothing could get."""
    digits = {"constant": 2, "layers": 2, "best": 2, "cost": 3, "least": 2, "taken": 2}
    rows = []
    for label, run in part.labelled("bench"):
        table = run.tables["bench"].to_pylist()
        for size, length in dict.fromkeys((row["batch_size"], row["length"]) for row in table):
            found = limits([row for row in table if (row["batch_size"], row["length"]) == (size, length)])
            if found is not None:
                told = (number(value, digits.get(name, 3)) for name, value in found.items())
                rows.append((label, str(size), str(length or "data"), *told))
    header = ("model", "batch", "tokens", "constant", "all layers", "best full depth", "cost")
    rest = ("exits for nothing", "ours-int8", "share in reach", "share reached")
    note = (
        "Milliseconds a request. Constant and layers: a line through the static int8 models' mean times; exits for "
        "nothing: that line at our cost."
    )
    return TextTable("What limits early exits", (*header, *rest), tuple(rows), note)


def bench_train_table(part: ReportSection) -> TextTable:
    """What a training step costs."""
    rows = []
    for label, run in part.labelled("bench_train"):
        for row in run.tables["bench_train"].to_pylist():
            seconds = interval(row["seconds"], row["lowest"], row["highest"])
            told = [number(row[name], digits) for name, digits in TRAINING.items()]
            rows.append((label, row["name"].replace("_", " "), seconds, *told))
    header = ("run", "training", "seconds a step", "examples/s", "× plain", "activations, MiB")
    note = "Medians over rounds; brackets: lowest and highest round. × plain: paired by round."
    return TextTable("Training steps", header, tuple(rows), note, words=2)


def promises_table(part: ReportSection) -> TextTable:
    """How often thresholds with a guarantee keep it."""
    rows = []
    for label, run in part.labelled("promises"):
        for row in run.tables["promises"].to_pylist():
            stated = "on average" if row["delta"] is None else f"with probability {1 - row['delta']:g}"
            held = f"{round(row['held'] * row['splits'])} of {row['splits']}"
            told = [number(row[name]) for name in ("mean_risk", "high_risk", "cost")]
            names = (label, row["criterion"], row["guarantee"].replace("_", " "))
            rows.append((*names, f"{row['alpha']:g}, {stated}", held, *told, "yes" if row["kept"] else "no"))
    header = (
        "model",
        "rule",
        "guarantee",
        "at most",
        "held in splits",
        "mean risk",
        "95 % below",
        "cost",
        "kept",
    )
    note = (
        "Risks are measured on the rows that a split leaves out; conformal promises speak of the mean risk."
    )
    return TextTable("Promises on rows left out", header, tuple(rows), note, words=4)


def bench_attack_table(part: ReportSection) -> TextTable:
    """What attacks cost beside the released work pattern."""
    rows = []
    for label, run in part.labelled("bench_attack"):
        for row in run.tables["bench_attack"].to_pylist():
            told = [number(row[name], digits) for name, digits in ATTACKING.items()]
            depths = change(row["clean_depth"], row["depth"], 2)
            rows.append((label, row["name"], str(row["examples"]), depths, *told))
    header = (
        "model",
        "attack",
        "examples",
        "depth",
        "seconds",
        "forward",
        "gradient",
        "beforehand",
        "in the model",
        "times faster",
    )
    note = (
        "Passes are means per example; beforehand: short texts run once for all of them, their time counted; "
        "in the model: share of the time; depth: clean → adversarial."
    )
    return TextTable("Attacks timed", header, tuple(rows), note, words=2)


def stream_table(part: ReportSection) -> TextTable:
    """What streams came to."""
    rows = []
    for label, run in part.labelled("stream"):
        series = run.tables["stream"].to_pylist()
        for mode in dict.fromkeys(row["mode"] for row in series):
            end = [row for row in series if row["mode"] == mode][-1]
            told = [number(run.get(f"{mode}_{name}")) for name in ("throughput_change", "memory_growth_mib")]
            speed = number(end["texts"] / end["seconds"], 0)
            memory = number(end["resident_mib"], 0)
            rows.append(
                (label, mode, str(end["texts"]), number(end["seconds"], 0), speed, told[0], memory, told[1])
            )
    header = (
        "model",
        "mode",
        "texts",
        "seconds",
        "texts/s",
        "change of speed",
        "resident MiB",
        "growth, MiB",
    )
    note = "Change and growth: second half against first, last look against first, after one minute."
    return TextTable("Streams", header, tuple(rows), note, words=2)


def exit_scores(part: ReportSection, metric: str) -> dict[str, pa.Table]:
    """By model, rows with `layer`, `score`, `low` and `high`: what the figure of the exits is drawn from.

    A comparison's scores, over all models of a method, take the place of those of the single models in it.
    """
    found: dict[str, pa.Table] = {}
    for run in part.runs:
        if "scores" in run.tables and run.get("metric", "accuracy") == metric:
            found |= _compared_exits(run.tables["scores"])
    compared = bool(found)
    for label, run in part.labelled("per_exit"):
        rows = rows_where(run.tables["per_exit"], "metric", metric)
        if rows.num_rows and not (compared and run.record["path"] in part.covered):
            found[label] = rows
    return found


def _compared_exits(scores: pa.Table) -> dict[str, pa.Table]:
    """The rows of a comparison that are about single exits, by method."""
    found: dict[str, list[tuple[int, float, float, float]]] = {}
    for row in scores.to_pylist():
        layer = row["place"].removeprefix("layer ")
        if layer != row["place"]:
            found.setdefault(row["method"], []).append((int(layer), row["score"], row["low"], row["high"]))
    return {method: from_rows(("layer", "score", "low", "high"), rows) for method, rows in found.items()}


def _interval(row: dict[str, Any], name: str = "estimate", digits: int = 3) -> str:
    return interval(row[name], row["low"], row["high"], digits)


def _commit(git: dict[str, Any] | None) -> str:
    if not git:
        return NOTHING
    return str(git.get("commit", NOTHING))[:10] + (" (dirty)" if git.get("dirty") else "")


PARTS: dict[str, Callable[[ReportSection], TextTable]] = {
    "policies": policies_table,
    "exits": exits_table,
    "areas": areas_table,
    "comparison": comparison_table,
    "winners": winners_table,
    "robustness": robustness_summary_table,
    "attacks": attacks_table,
    "calibration": reliability_errors_table,
    "timing": timing_table,
    "bench": bench_table,
    "bench-limits": limits_table,
    "bench-train": bench_train_table,
    "bench-attack": bench_attack_table,
    "stream": stream_table,
    "promises": promises_table,
}
