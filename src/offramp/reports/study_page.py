"""The HTML page of a study: one question about many runs, its answer, and the tables and charts behind it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from offramp._core.text import slug
from offramp.evaluation.curves import Curve
from offramp.reports.charts import Chart
from offramp.reports.contents import ReportSection
from offramp.reports.doubt_groups import MOST, explain_doubt
from offramp.reports.explorer import curve_chart, explorer
from offramp.reports.forest import Forest
from offramp.reports.html import macros
from offramp.reports.page import render_page
from offramp.reports.page_sections import PageSection
from offramp.reports.style import render
from offramp.reports.summary import Summary
from offramp.reports.text_table import NOTHING, TextTable

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

REST = "More tables"
NO_RUNS = ReportSection("", [], {}, frozenset(), [])  # a study's curves belong to no single run
SHOWN = ("torch", "transformers", "offramp")  # versions


@dataclass(frozen=True)
class StudyCurves:
    """Speed–accuracy curves of one encoder and task: a chart, and what its slider moves."""

    name: str
    chart: Chart
    content: dict[str, Any]


@dataclass(frozen=True)
class Chapter:
    """A section of the page.

    Attributes:
        title: of the section.
        charts: estimates in rows, and marks by exit.
        curves: of which the first unfolds.
        tables: names of tables of the study, in order; those that do not exist are left out.
        figures: names or patterns of figures, which are folded away.
    """

    title: str
    charts: Sequence[Forest | Chart | None] = ()
    curves: Sequence[StudyCurves | None] = ()
    tables: Sequence[str] = ()
    figures: Sequence[str] = ()


@dataclass(frozen=True)
class StudyContents:
    """What the page of a study shows besides its tables and figures.

    Attributes:
        summary: the first screen.
        chapters: the sections, the one with the answer's chart first.
        left_out: sentences about what is not compared.
        doubts: sentences, each with the name of its check in brackets.
        records: of all runs, each with its `path`.
    """

    summary: Summary
    chapters: Sequence[Chapter]
    left_out: Sequence[str]
    doubts: Sequence[str]
    records: Sequence[Mapping[str, Any]]


def study_page(
    title: str, contents: StudyContents, tables: Mapping[str, TextTable], figures: Mapping[str, Figure]
) -> str:
    """The whole page as HTML: the same for the same input.

    Args:
        title: of the study.
        contents: the first screen, and how the rest is divided.
        tables: by name; those that no chapter names stand in one of their own.
        figures: by name; the page shows those that a chapter names.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    named = {name for chapter in contents.chapters for name in chapter.tables}
    rest = Chapter(REST, tables=[name for name in tables if name not in named and name != "doubts"])
    sections = [_section(chapter, tables, figures) for chapter in (*contents.chapters, rest)]
    return render_page(
        title,
        contents.summary,
        cautions=_some(contents.left_out),
        doubts=[explain_doubt(sentence) for sentence in contents.doubts],
        sections=[*(section for section in sections if section.blocks), _provenance(contents.records)],
    )


def study_curves(
    name: str, metric: str, curves: Mapping[str, Sequence[Curve]], data: str
) -> StudyCurves | None:
    """The curves of some methods, and their slider, which moves the first model of each; None if undefined.

    Args:
        name: unique on the page.
        metric: of the scores.
        curves: one for each model, by method.
        data: names what the models were measured on.
    """
    chart = curve_chart(f"chart-{slug(name)}", metric, curves, data)
    if chart is None:
        return None
    firsts = {
        label if len(group) == 1 else f"{label}, first of {len(group)}": group[:1]
        for label, group in curves.items()
    }
    return StudyCurves(data, chart, explorer(NO_RUNS, metric, firsts, chart))


def _section(chapter: Chapter, tables: Mapping[str, TextTable], figures: Mapping[str, Figure]) -> PageSection:
    block = macros()
    charts = [
        block.forest(chart) if isinstance(chart, Forest) else block.chart(chart)
        for chart in chapter.charts
        if chart
    ]
    sliders = [(curves.name, _slider(curves)) for curves in chapter.curves if curves]
    opened = [slider for _, slider in sliders[:1]]
    folded = [block.folded(name, [slider]) for name, slider in sliders[1:]]
    drawn = [
        block.picture(name, "data:image/svg+xml;base64," + base64.b64encode(render(figure, "svg")).decode())
        for name, figure in figures.items()
        if any(fnmatchcase(name, pattern) for pattern in chapter.figures)
    ]
    blocks = [
        *([block.side_by_side(charts)] if charts else []),
        *opened,
        *folded,
        *(block.table(tables[name]) for name in chapter.tables if name in tables),
        *([block.folded("Figures", drawn)] if drawn else []),
    ]
    return PageSection(slug(chapter.title.lower().replace(" ", "-")), chapter.title, blocks)


def _slider(curves: StudyCurves) -> Markup:
    made: Markup = macros().explorer(curves.chart.id, curves.chart, curves.content)
    return made


def _some(sentences: Sequence[str]) -> list[str]:
    """The first sentences, and how many more there are."""
    left = [f"Left out: {sentence}." for sentence in sentences[:MOST]]
    more = len(sentences) - MOST
    return [*left, f"{more} more were left out; report.md lists them."] if more > 0 else left


def _provenance(records: Sequence[Mapping[str, Any]]) -> PageSection:
    """Where the numbers come from: how many records each commit made, on what, and the paths of all."""
    block = macros()
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        git, hardware = record.get("git") or {}, record.get("hardware") or {}
        commit = str(git.get("commit", NOTHING))[:10] + (" (dirty)" if git.get("dirty") else "")
        versions = [str(record.get("versions", {}).get(name, NOTHING)) for name in SHOWN]
        cpu = str(hardware.get("gpu") or hardware.get("cpu") or NOTHING)
        groups.setdefault((str(record["command"]), commit, cpu, *versions), []).append(record)
    rows = []
    for key, group in groups.items():
        days = sorted(str(record["started"])[:10] for record in group)
        rows.append((*key, days[0], days[-1], str(len(group))))
    header = ("command", "commit", "hardware", *SHOWN, "first", "last", "records")
    note = "Every number of this page is computed from these records, and from nothing else."
    origins = TextTable("Where every number comes from", header, tuple(rows), note, words=8)
    paths = "\n".join(str(record["path"]) for record in records)
    return PageSection(
        "provenance", "Provenance", [block.table(origins), block.record(f"All {len(records)} records", paths)]
    )
