"""The question that a benchmark asks, and its answer in at most two sentences, from the rows of its table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from offramp.reports.contents import ReportSection
from offramp.reports.text_table import interval, signed

Rows = list[dict[str, Any]]
OURS, BUDGET = "offramp serve", "offramp serve, work budget"  # services


class Question(NamedTuple):
    """What a table answers: the question, which ends with the name of the data, and the sentences for its rows."""

    asked: str
    answer: Callable[[Rows], list[str]]


def bench_question(section: ReportSection) -> tuple[str, list[str]]:
    """The question of the first benchmark of a section, without its data, and the answer; empty without any."""
    for table, question in QUESTIONS.items():
        rows = [row for _, row in section.rows(table)]
        sentences = question.answer(rows) if rows else []
        if sentences and table == "service":
            sentences += under_attack([row for _, row in section.rows("service_attack")])
        if sentences:
            return question.asked, sentences
    return "", []


def fastest(rows: Rows) -> list[str]:
    """The fastest of our engines, for the smallest requests."""
    ours = [row for row in rows if row["kind"] == "ours"]
    if not ours:
        return []
    row = min(ours, key=lambda row: (row["batch_size"], -row["faster"]))
    times = f"{row['faster']:.2f} times as fast as the fastest model at full depth"
    return [f"{row['peer']} answers in {row['mean']:.1f} ms at batch size {row['batch_size']}: {times}."]


def kept(rows: Rows) -> list[str]:
    """How many of the checked guarantees held."""
    noun = "guarantee" if len(rows) == 1 else "guarantees"
    return [f"{sum(row['kept'] for row in rows)} of {len(rows)} {noun} held on texts left out."]


def served(rows: Rows) -> list[str]:
    """Texts a second of our service, for the largest requests, beside the fastest other one."""
    largest = max(row["rows"] for row in rows)
    speeds = {row["peer"]: row["texts_per_second"] for row in rows if row["rows"] == largest}
    if OURS not in speeds:
        return []
    own = speeds.pop(OURS)
    sentence = f"{OURS} answers {own:,.0f} texts a second, at {largest} texts a request"
    if not speeds:
        return [f"{sentence}."]
    other = max(speeds, key=lambda peer: speeds[peer])
    return [f"{sentence}: {own / speeds[other]:.1f} times as many as the fastest other service, {other}."]


def under_attack(rows: Rows) -> list[str]:
    """How much the slowest answers of honest clients rise under the largest attack, without and with a budget."""
    share = max((row["attacked_share"] for row in rows), default=0)
    rises = {row["service"]: row["rise"] for row in rows if row["attacked_share"] == share}
    if OURS not in rises:
        return []
    limited = f", with a work budget by {100 * rises[BUDGET]:.0f} %" if BUDGET in rises else ""
    return [
        f"While {100 * share:.0f} % of the traffic is attacked texts, the p99 of honest clients rises by "
        f"{100 * rises[OURS]:.0f} %{limited}."
    ]


def trained(rows: Rows) -> list[str]:
    """The strategies whose step costs least and most, against plain fine-tuning, which is the first row."""
    strategies = sorted(rows[1:], key=lambda row: row["times_plain"])
    if not strategies:
        return []
    least, *_, most = [*strategies, strategies[-1]]
    first = f"A training step of {least['name']} takes {least['times_plain']:.2f} times as long as plain fine-tuning"
    if len(strategies) == 1:
        return [f"{first}."]
    return [
        f"{first}, the least of {len(strategies)} strategies; one of {most['name']} takes "
        f"{most['times_plain']:.2f} times as long."
    ]


def attacked(rows: Rows) -> list[str]:
    """How much faster the first recipe is than the released code's work pattern."""
    row = rows[0]
    faster = interval(row["times_faster"], row.get("lowest"), row.get("highest"), 1)
    return [
        f"{row['name']} is {faster} times as fast as the released code's work pattern, on the same {row['examples']} "
        "examples."
    ]


def streamed(rows: Rows) -> list[str]:
    """The speed and memory of every mode at the end of its stream."""
    ends = {row["mode"]: row for row in rows}  # the last row of each mode
    middles = {mode: [row for row in rows if row["mode"] == mode] for mode in ends}
    sentences = []
    for mode, end in ends.items():
        half = middles[mode][len(middles[mode]) // 2]
        grown = signed(end["resident_mib"] - half["resident_mib"], 0)
        sentences.append(
            f"With {mode}, {end['texts']:,} texts are answered at {end['texts'] / end['seconds']:,.0f} a second; "
            f"memory changes by {grown} MiB in the second half."
        )
    return sentences[:2]


def noticed(rows: Rows) -> list[str]:
    """How many shifts are noticed, and how often the first stage, which has not shifted, raises an alarm."""
    first, *shifts = rows
    delays = [min(map(_delay, (row["drift_delay"], row["audit_delay"]))) for row in shifts]
    seen = [delay for delay in delays if math.isfinite(delay)]
    slowest = f", the slowest after {max(seen):,.0f} texts" if seen else ""
    false = max(first["drift_alarmed"], first["audit_alarmed"])
    sentences = [f"Before the texts change, {100 * false:.0f} % of the streams raise a false alarm."]
    if shifts:
        sentences.insert(0, f"{len(seen)} of {len(shifts)} shifts are noticed in most streams{slowest}.")
    return sentences


def _delay(texts: float | None) -> float:
    """Texts until an alarm; infinite where most streams have none."""
    return math.inf if texts is None or math.isnan(texts) else texts


QUESTIONS = {
    "promises": Question("Do guarantees hold", kept),
    "bench": Question("How fast are early exits", fastest),
    "service": Question("How fast is a service with early exits", served),
    "bench_train": Question("What does a training step cost", trained),
    "bench_attack": Question("How fast are the attacks", attacked),
    "stream": Question("Do speed and memory stay the same over a long stream", streamed),
    "drift": Question("How soon do alarms notice that texts have changed", noticed),
}
