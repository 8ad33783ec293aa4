"""One self-contained HTML page for a folder of runs, and the frame of every page. It opens offline and loads nothing.

The page carries a content policy with the hash of its own script. No other script runs and nothing is fetched, whatever
an attacked text contains. Every value is escaped by the template engine, and the script writes texts as texts only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from offramp.reports.contents import ReportContents
from offramp.reports.doubt_groups import DoubtGroup, group_doubts
from offramp.reports.html import content_policy, environment, macros, page_script
from offramp.reports.page_sections import PageSection, sections_of
from offramp.reports.summary import Summary, cautions, summarise
from offramp.reports.text_table import NOTHING, TextTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The part of the page that shows a table of a record, and what the table holds.
PARTS = {
    "curves": "Speed and accuracy",
    "policy": "Answer, models under their policies",
    "timing": "Speed and accuracy: milliseconds, measured speed",
    "per_exit": "Every exit",
    "reliability": "Every exit: calibration",
    "histogram": "Where texts leave",
    "scores": "Runs compared, every exit",
    "winners": "Runs compared: who wins where",
    "conflict": "Gradient conflict",
    "attack": "Under attack, adversarial examples",
    "bench": "Benchmarks",
    "bench_train": "Benchmarks: training steps",
    "bench_attack": "Benchmarks: attacks",
    "stream": "Benchmarks: streams",
    "promises": "Benchmarks: guarantees",
    "drift": "Benchmarks: alarms",
    "service": "Benchmarks: services",
    "service_latency": "Benchmarks: single texts",
    "service_attack": "Benchmarks: honest clients under attack",
}


def page(contents: ReportContents, tables: Mapping[str, TextTable], figures: Mapping[str, Figure]) -> str:
    """The whole page as HTML: the same for the same input.

    Args:
        tables: of `tables.all_tables`.
        figures: of `build.all_figures`; the page shows those that it does not draw itself.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    environment()  # reports that jinja2 is missing
    sections = [made for data in contents.sections for made in sections_of(data, tables, figures)]
    doubted = [caution for section in contents.sections for caution in cautions(section)]
    return render_page(
        contents.title,
        summarise(contents),
        cautions=[*contents.left_out, *doubted],
        doubts=group_doubts(contents.raised),
        sections=[*sections, _provenance(contents, tables)],
    )


def render_page(
    title: str,
    summary: Summary,
    *,
    cautions: Sequence[str],
    doubts: Sequence[DoubtGroup],
    sections: Sequence[PageSection],
) -> str:
    """A page of these sections below a first screen, with the page's style, script and content policy."""
    template = environment().get_template("page.html.j2")
    from markupsafe import Markup  # after `environment`, which reports that jinja2 is missing

    script = page_script()
    return template.render(
        title=title,
        summary=summary,
        cautions=cautions,
        doubts=doubts,
        sections=sections,
        policy=content_policy(script),
        script=Markup(script),
    )


def _provenance(contents: ReportContents, tables: Mapping[str, TextTable]) -> PageSection:
    """Where every number comes from: the records with their tables, and each record whole."""
    block = macros()
    rows, records = [], []
    for run in contents.runs:
        record = run.record
        shown = list(dict.fromkeys(PARTS[name] for name in run.tables if name in PARTS))
        git = record["git"] or {}
        commit = str(git.get("commit", NOTHING))[:10] + (" (dirty)" if git.get("dirty") else "")
        rows.append((record["path"], run.command, "; ".join(shown) or NOTHING, commit))
        described = {name: value for name, value in record.items() if name != "tables"}
        content = json.dumps(described, indent=2, ensure_ascii=False, default=str)
        records.append(block.record(f"{run.name}: {run.command} ({record['path']})", content))
    note = "Every number of a part is computed from the tables of these records, and from nothing else."
    header = ("record", "command", "parts of this page", "commit")
    origins = TextTable("Where every number comes from", header, tuple(rows), note, words=4)
    blocks = [block.table(origins), block.table(tables["runs"]), *records]
    return PageSection("provenance", "Provenance", blocks)
