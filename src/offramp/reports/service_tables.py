"""The tables of a report on a service under load."""

from __future__ import annotations

from offramp.reports.contents import ReportSection
from offramp.reports.text_table import TextTable, change, interval, number


def service_table(section: ReportSection) -> TextTable:
    """Texts a second of every service at saturation."""
    rows = [
        (
            *(label, row["peer"], str(row["rows"])),
            *(number(row["texts_per_second"], 0), number(row["ratio"], 2), number(row["p99"], 1)),
            *(number(row["accuracy"], 3), number(row["start_seconds"], 2)),
        )
        for label, row in section.rows("service")
    ]
    header = (
        "model",
        "service",
        "texts a request",
        "texts/s",
        "ours is faster, ×",
        "p99, ms",
        "accuracy",
        "start, s",
    )
    note = (
        "At saturation. Medians over rounds, in which the services take turns. Start: from the start of the process to "
        "its first answer, once."
    )
    return TextTable("Services", header, tuple(rows), note, words=2)


def service_latency_table(section: ReportSection) -> TextTable:
    """Times of single texts that arrive at random, over HTTP and in process."""
    rows = [
        (
            *(label, row["way"], number(row["rate"], 0), number(row["reached"], 0)),
            *(number(row[name], 2) for name in ("p50", "p95", "p99", "ratio")),
        )
        for label, row in section.rows("service_latency")
    ]
    header = ("model", "way", "texts/s", "reached", "p50, ms", "p95, ms", "p99, ms", "× p95 in process")
    note = "Single texts arrive at random times, at half the texts/s of the saturated service. Medians over rounds."
    return TextTable("Single texts at half load", header, tuple(rows), note, words=2)


def service_attack_table(section: ReportSection) -> TextTable:
    """Times of honest clients while a share of the traffic is attacked texts."""
    rows = [
        (
            *(label, row["service"], number(row["attacked_share"], 2)),
            *(change(row[f"{name}_before"], row[name], 2) for name in ("p50", "p99")),
            interval(row["rise"], row["rise_low"], row["rise_high"]),
            number(row["cost"], 3),
        )
        for label, row in section.rows("service_attack")
    ]
    header = ("model", "service", "attacked share", "p50, ms", "p99, ms", "rise of p99", "attacked cost")
    note = (
        "Times of honest clients' requests of one text without and with the attack, medians over rounds. Without it, "
        "honest texts take the place of the attacked ones, so that the rate of all traffic stays the same. Rise: "
        "median of the rounds' ratios less 1, and their range. "
        "Attacked cost: FLOPs that the attacker's texts got, as a share of the full model's."
    )
    return TextTable("Honest clients under attack", header, tuple(rows), note, words=2)
