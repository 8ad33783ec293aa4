"""The sections of the page for one data set, as blocks of safe HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.text import slug
from offramp.evaluation.arrow_tables import floats
from offramp.reports.budgets import at_budgets, budgets_chart, budgets_table
from offramp.reports.charts import Chart, Lines, line_chart, percent
from offramp.reports.contents import ReportSection
from offramp.reports.examples import example_data
from offramp.reports.explorer import curve_chart, explorer
from offramp.reports.heat_maps import NOTE, cosine_maps
from offramp.reports.html import macros
from offramp.reports.style import render
from offramp.reports.tables import exit_scores
from offramp.reports.text_table import TextTable, number

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

SECTIONS = {
    "curves": "Speed and accuracy",
    "exits": "Every exit",
    "leaving": "Where texts leave",
    "conflict": "Gradient conflict",
    "robustness": "Under attack",
    "examples": "Adversarial examples",
    "comparison": "Runs compared",
    "bench": "Benchmarks",
}
BENCHES = (
    *("bench", "bench-limits", "bench-train", "bench-attack", "stream", "promises", "drift"),
    *("service", "service-latency", "service-attack"),
)


@dataclass(frozen=True)
class PageSection:
    """A section of the page: `id` is the target of the link at the top, `blocks` the content as safe HTML."""

    id: str
    title: str
    blocks: list[Markup]


@dataclass(frozen=True)
class Bars:
    """Shares of the texts that leave at each exit: `rows` of (exit, percent of each of the `sides`)."""

    title: str
    sides: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class _Blocks:
    """Makes the blocks of a data set from its tables and figures."""

    section: ReportSection
    tables: Mapping[str, TextTable]
    figures: Mapping[str, Figure]
    make: Any

    def made(self, *names: str) -> list[Markup]:
        """The tables of those names that there are."""
        full = [self.section.prefix + name for name in names]
        return [self.make.table(self.tables[name]) for name in full if name in self.tables]

    def drawn(self, *kinds: str) -> list[Markup]:
        """The figures whose names begin so, as images: two SVGs never share the ids of their elements then."""
        starts = tuple(self.section.prefix + kind for kind in kinds)
        return [
            self.make.picture(
                name, "data:image/svg+xml;base64," + base64.b64encode(render(figure, "svg")).decode()
            )
            for name, figure in self.figures.items()
            if name.startswith(starts)
        ]

    def curves(self) -> list[Markup]:
        blocks = []
        for metric, curves in self.section.curves.items():
            name = f"{self.section.prefix}{slug(metric)}"
            chart = curve_chart(f"chart-{name}", metric, curves, self.section.data)
            if chart is None:
                continue
            content = explorer(self.section, metric, curves, chart)
            blocks.append(
                self.make.explorer(name, chart, content) if content["models"] else self.make.chart(chart)
            )
        return [*blocks, *self.made("policies", "timing")]

    def exits(self) -> list[Markup]:
        metrics = [row["metric"] for _, row in self.section.rows("per_exit")]
        metrics += [str(run.get("metric", "accuracy")) for _, run in self.section.labelled("scores")]
        drawn = [chart for name in dict.fromkeys(metrics) if (chart := exits_chart(self.section, name))]
        charts = [self.make.side_by_side([self.make.chart(chart) for chart in drawn])] if drawn else []
        details = self.drawn("reliability")
        folded = [self.make.folded("Reliability diagrams", details)] if details else []
        return [*charts, *self.made("exits", "calibration"), *folded]

    def robustness(self) -> list[Markup]:
        budgets = {attack.label: at_budgets(attack) for attack in self.section.attacks}
        chart = budgets_chart(f"chart-{self.section.prefix}budgets", budgets)
        table = budgets_table(self.section, budgets)
        drawn = [self.make.chart(chart)] if chart else []
        listed = [self.make.table(table)] if table.rows else []
        return [*self.made("robustness"), *drawn, *listed, *self.made("attacks")]

    def examples(self) -> list[Markup]:
        attacks = [example_data(attack) for attack in self.section.attacks]
        filled = [attack for attack in attacks if attack["rows"]]
        return [self.make.examples(f"{self.section.prefix}browser", filled)] if filled else []


def sections_of(
    section: ReportSection, tables: Mapping[str, TextTable], figures: Mapping[str, Figure]
) -> list[PageSection]:
    """Sections for the runs on one data set; those without content are left out."""
    make = macros()
    blocks = _Blocks(section, tables, figures, make)
    content = {
        "curves": blocks.curves(),
        "exits": blocks.exits(),
        "leaving": [make.several(charts) for charts in [leaving(section)] if charts],
        "conflict": [
            make.heats(cosine_maps(label, run.tables["conflict"]), NOTE)
            for label, run in section.labelled("conflict")
        ],
        "robustness": blocks.robustness(),
        "examples": blocks.examples(),
        "comparison": blocks.made("comparison", "winners", "areas"),
        "bench": [*blocks.drawn("bench-", "stream-"), *blocks.made(*BENCHES)],
    }
    data = f"{section.data or 'other'}: " if section.prefix else ""
    return [
        PageSection(section.prefix + name, data + SECTIONS[name], filled)
        for name, filled in content.items()
        if filled
    ]


def exits_chart(section: ReportSection, metric: str) -> Chart | None:
    """The score of every exit, taken always, with its interval, models side by side; None if all are undefined."""
    scores = {label: table.to_pylist() for label, table in exit_scores(section, metric).items()}
    name = metric.replace("_", " ")
    title = f"{name.capitalize()} of every exit by itself"
    return exit_marks(f"chart-{section.prefix}exits-{slug(metric)}", title, scores, name.capitalize())


def exit_marks(
    id: str, title: str, scores: Mapping[str, Sequence[Mapping[str, Any]]], metric: str
) -> Chart | None:
    """Marks with intervals by exit; `scores` has rows with `layer`, `score`, `low` and `high` for each model."""
    layers = sorted({row["layer"] for rows in scores.values() for row in rows})
    step, lines = min(0.14, 0.6 / max(len(scores), 1)), []
    for position, (label, rows) in enumerate(scores.items()):
        shift = (position - (len(scores) - 1) / 2) * step
        marks, whiskers = [], []
        for row in rows:
            x = layers.index(row["layer"]) + shift
            marks.append((x, row["score"], f"{label}, layer {row['layer']}: {number(row['score'])}"))
            whiskers.append((x, row["low"], row["high"]))
        lines.append(Lines(label, marks=marks, whiskers=whiskers))
    return line_chart(
        id,
        title,
        lines,
        x="Exit after layer",
        y=metric,
        span=(-0.5, len(layers) - 0.5),
        at=range(len(layers)),
        write=(lambda position: str(layers[round(position)]), percent),
        note="Whiskers: 95 % bootstrap intervals.",
    )


def leaving(section: ReportSection) -> list[Bars]:
    """Where texts leave: of each model under its policy, and of each attack before and after."""
    charts: list[Bars] = []
    rungs: tuple[tuple[str, tuple[float, ...]], ...]
    for label, run in section.labelled("histogram"):
        rows = run.tables["histogram"].to_pylist()
        rungs = tuple((f"layer {row['layer']}", (100 * row["share"],)) for row in rows)
        charts.append(Bars(label, ("texts",), rungs))
    for attack in section.attacks:
        sides = []
        for side in ("clean", "adversarial"):
            taken = floats(attack.rows, f"{side}_exit").astype(np.intp)
            sides.append(100 * np.bincount(taken, minlength=len(attack.exit_layers)) / len(taken))
        rungs = tuple(
            (f"layer {layer}", (float(before), float(after)))
            for layer, before, after in zip(attack.exit_layers, *sides, strict=True)
        )
        charts.append(Bars(f"Attack {attack.label}", ("clean", "attacked"), rungs))
    return charts
