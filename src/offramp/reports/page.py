"""One self-contained HTML page for a folder of runs. It opens offline and loads nothing.

The page carries a content policy with the hash of each of its own scripts. No other script runs and nothing is
fetched, whatever an attacked text contains. Every value is escaped by the template engine. Plotly's script (5 MB)
is included only where there are interactive curves; with `interactive=False` the curves are pictures, and the page
takes some hundred kB.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from offramp._core.errors import MissingExtraError
from offramp._core.text import visible
from offramp.attacks.text.diff import diff_html
from offramp.reports.contents import ReportContents, ReportSection
from offramp.reports.interactive import DRAW, curve_plot, plotly_script
from offramp.reports.text_table import TextTable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

SECTIONS = {
    "curves": "Speed and accuracy",
    "exits": "Exits",
    "leaving": "Where examples leave",
    "robustness": "Under attack",
    "examples": "Adversarial examples",
}
SHOWN = 12  # examples of each attack


@dataclass(frozen=True)
class PageSection:
    """A section of the page: `id` is the target of the link at the top, `blocks` the content as safe HTML."""

    id: str
    title: str
    blocks: list[Markup]


def page(
    contents: ReportContents,
    tables: Mapping[str, TextTable],
    figures: Mapping[str, bytes],
    *,
    interactive: bool = True,
) -> str:
    """The whole page as HTML: the same for the same input.

    Args:
        tables: of `tables.all_tables`.
        figures: SVG images by the names of `build.all_figures`.
        interactive: whether curves answer to the mouse.

    Raises:
        MissingExtraError: jinja2 is not installed, or plotly for an interactive page.
    """
    macros: Any = environment().get_template("macros.html.j2").module
    from markupsafe import Markup  # after `environment`, which reports that jinja2 is missing

    sections = [PageSection("runs", "What was run", [macros.table(tables["runs"])])]
    for section in contents.sections:
        sections += _data_sections(section, tables, figures, interactive)
    setup = []
    for run in contents.runs:
        configuration = {name: value for name, value in run.record.items() if name != "tables"}
        content = json.dumps(configuration, indent=2, ensure_ascii=False, default=str)
        setup.append(macros.record(f"{run.name}: {run.record['command']}", content))
    sections.append(PageSection("setup", "Configuration and hardware", setup))
    plots = interactive and any(section.curves for section in contents.sections)
    scripts = [plotly_script(), DRAW] if plots else []
    for script in scripts:
        assert "</script" not in script.lower()
        assert "<!--" not in script
    template = environment().get_template("page.html.j2")
    return template.render(
        title=contents.title,
        doubts=contents.doubts,
        sections=sections,
        policy=content_policy(scripts),
        scripts=[Markup(script) for script in scripts],
    )


@cache
def environment() -> Environment:
    """The template engine: escapes every value and writes out invisible characters."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingExtraError("jinja2", "torch") from error

    made = Environment(
        loader=PackageLoader("offramp.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
    # The filter `tojson` also escapes whatever could end the script element.
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return made


def content_policy(scripts: list[str]) -> str:
    """The content security policy: these scripts may run, nothing may be fetched."""
    digests = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _data_sections(
    section: ReportSection, tables: Mapping[str, TextTable], figures: Mapping[str, bytes], interactive: bool
) -> list[PageSection]:
    """Sections for the runs on one data set; those without content are left out."""
    from markupsafe import Markup

    macros: Any = environment().get_template("macros.html.j2").module
    prefix = section.prefix

    def made(*names: str) -> list[Markup]:
        return [macros.table(tables[prefix + name]) for name in names if prefix + name in tables]

    def drawn(kind: str) -> list[Markup]:
        # As images, two SVGs never share the ids of their elements.
        return [
            macros.picture(name, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}")
            for name, svg in figures.items()
            if name.startswith(prefix + kind)
        ]

    plots = [
        macros.plot(f"{prefix}figure-{metric}", curve_plot(curves, metric))
        for metric, curves in section.curves.items()
        if interactive
    ]
    curves = [*made("policies"), *(plots if interactive else drawn("curves"))]
    examples = []
    for attack in section.attacks:
        rows = most_slowed(attack.rows.to_pylist(), SHOWN)
        # `diff_html` escapes every text; only its invisible characters (zero-width, direction marks) are left.
        shown = [row | {"diff": Markup(visible(diff_html(row)))} for row in rows]
        examples.append(macros.examples(attack.label, shown))
    blocks = {
        "curves": [*curves, *made("areas", "comparison", "winners", "timing")],
        "exits": [*drawn("exits"), *made("exits")],
        "leaving": drawn("histogram"),
        "robustness": [*drawn("depth"), *made("robustness", "attacks")],
        "examples": examples,
    }
    data = f"{section.data or 'other'}: " if prefix else ""
    filled = {name: content for name, content in blocks.items() if content}
    return [PageSection(prefix + name, data + SECTIONS[name], content) for name, content in filled.items()]


def most_slowed(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The rows with the largest gain in depth; among equal ones, those with the fewest changed words."""
    slowed = [row for row in rows if row["adversarial_layer"] > row["clean_layer"]]
    slowed.sort(
        key=lambda row: (row["clean_layer"] - row["adversarial_layer"], row["words_changed"] or 0, row["id"])
    )
    return slowed[:count]
