"""One HTML page of a study, with everything in it: it opens offline and loads nothing.

The page carries a content policy that names the hash of each of its own scripts, so that no other script runs
and nothing is fetched, whatever a text under attack contains. Plotly's script (5 MB) goes in only where there
are curves to touch; `interactive=False` draws them as pictures instead, in a page of some hundred kB.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from offramp.reports.contents import ReportContents, ReportSection
from offramp.reports.examples import examples_section
from offramp.reports.interactive import DRAW, curve_json, plotly_script
from offramp.reports.markup import Html, join, tag, text
from offramp.reports.text_table import TextTable

SECTIONS = {
    "curves": "Speed and accuracy",
    "exits": "Exits",
    "leaving": "Where examples leave",
    "robustness": "Under attack",
    "examples": "Adversarial examples",
}


@dataclass
class Scripts:
    """The page's own scripts, and the policy that allows these alone."""

    hashes: list[str] = field(default_factory=list)

    def add(self, code: str) -> Html:
        """A script element, noted by its hash."""
        assert "</script" not in code.lower()
        assert "<!--" not in code
        digest = base64.b64encode(hashlib.sha256(code.encode("utf-8")).digest()).decode()
        self.hashes.append(f"'sha256-{digest}'")
        return tag("script", Html(code))

    @property
    def policy(self) -> str:
        """The content security policy."""
        scripts = " ".join(self.hashes) or "'none'"
        return f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:"


def page(
    study: ReportContents,
    tables: Mapping[str, TextTable],
    figures: Mapping[str, Path],
    *,
    interactive: bool = True,
) -> str:
    """The whole page.

    Args:
        study: what the records say.
        tables: of `tables.all_tables`.
        figures: SVG files by the names of `build.all_figures`.
        interactive: whether curves answer to the mouse.

    Returns:
        HTML; the same for the same input.
    """
    scripts = Scripts()
    contents = [("runs", "What was run", [tables["runs"].html()])]
    for part in study.parts:
        contents += _sections(part, tables, figures, interactive)
    if interactive and any(part.curves for part in study.parts):
        contents[-1][2].extend([scripts.add(plotly_script()), scripts.add(DRAW)])
    contents.append(("setup", "Configuration and hardware", _setup(study)))
    links = [tag("a", text(title), href=f"#{name}") for name, title, _ in contents]
    sections = [tag("section", tag("h2", text(title)), join(body), id=name) for name, title, body in contents]
    top = tag("header", tag("h1", text(study.title)), tag("nav", *links))
    body = tag("body", top, join(_doubts(study)), *sections)
    return f"<!doctype html>\n{tag('html', _head(study.title, scripts), body, lang='en')}\n"


def _head(title: str, scripts: Scripts) -> Html:
    css = resources.files("offramp.reports").joinpath("page.css").read_text(encoding="utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=scripts.policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", text(f"offramp: {title}")),
        tag("style", Html(css)),
    )


def _sections(
    part: ReportSection, tables: Mapping[str, TextTable], figures: Mapping[str, Path], interactive: bool
) -> list[tuple[str, str, list[Html]]]:
    """What one data set's runs show: id, title and body of each section that has something to show."""

    def made(*names: str) -> list[Html]:
        return [tables[part.prefix + name].html() for name in names if part.prefix + name in tables]

    def drawn(kind: str) -> list[Html]:
        return [_picture(name, path) for name, path in figures.items() if name.startswith(part.prefix + kind)]

    bodies = {
        "curves": [
            *made("policies"),
            *(_plots(part) if interactive else drawn("curves")),
            *made("areas", "comparison", "winners", "timing"),
        ],
        "exits": [*drawn("exits"), *made("exits")],
        "leaving": drawn("histogram"),
        "robustness": [*drawn("depth"), *made("robustness", "attacks")],
        "examples": [examples_section(attack) for attack in part.attacks],
    }
    told = f"{part.data or 'other'}: " if part.prefix else ""
    return [(part.prefix + name, told + SECTIONS[name], body) for name, body in bodies.items() if body]


def _plots(part: ReportSection) -> list[Html]:
    """A plot per metric, drawn by plotly from JSON in the page."""
    parts = []
    for metric, curves in part.curves.items():
        name = f"{part.prefix}figure-{metric}"
        data = tag("script", Html(curve_json(curves, metric)), type="application/json", id=name)
        parts += [data, tag("div", class_="plot", data_figure=name)]
    return parts


def _picture(name: str, path: Path) -> Html:
    """A figure inside the page; as an image, so that the parts of two SVGs never share their ids."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return tag("img", src=f"data:image/svg+xml;base64,{data}", alt=name.replace("-", " "))


def _doubts(study: ReportContents) -> list[Html]:
    return [tag("p", text(doubt), class_="doubt") for doubt in study.doubts]


def _setup(study: ReportContents) -> list[Html]:
    """Each record but for its tables and doubts, folded."""
    parts = []
    for run in study.runs:
        kept = {name: value for name, value in run.record.items() if name != "tables"}
        written = json.dumps(kept, indent=2, ensure_ascii=False, default=str)
        title = f"{run.name}: {run.record['command']}"
        parts.append(tag("details", tag("summary", text(title)), tag("pre", text(written))))
    return parts
