"""Writing a report: one Markdown file, its tables, and the figures that were asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from offramp._core import progress as display
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.files import atomic_write, check_writable
from offramp._core.markdown import plain_markdown
from offramp._core.paths import UserPath, user_path
from offramp.evaluation.arrow_tables import to_csv
from offramp.reports.style import ENDINGS, render
from offramp.reports.text_table import TextTable

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

ALL_FIGURES = ("*",)
NO_FIGURES: tuple[str, ...] = ()


def write_report(
    folder: UserPath,
    *,
    title: str,
    tables: Mapping[str, TextTable],
    figures: Mapping[str, Figure],
    lead: Sequence[str] = (),
    doubts: Sequence[str] = (),
    shown: Sequence[str] = NO_FIGURES,
    data: Mapping[str, pa.Table] | None = None,
    table_files: bool = True,
    page: Callable[[Mapping[str, Figure]], str] | None = None,
    progress: bool = False,
) -> dict[str, Path]:
    """Write the files of a report. Files of an earlier one are overwritten.

    Args:
        title: heading of the Markdown file.
        tables: tables for people, by file name. In `report.md`, the link target `#NAME` stands above each.
        figures: every figure that there is, by file name.
        lead: sentences below the title.
        doubts: sentences of doubt, quoted below it.
        shown: which figures to write, as names or patterns such as `curves-*`.
        data: tables for programs, written as CSV, by file name.
        table_files: whether every table gets a file in `tables/`, too. Without, nothing is written of `data`.
        page: makes an HTML page from all figures; None writes no page.
        progress: show a progress bar.

    Returns:
        The files written, by name: `report.md`, `tables/….md`, `tables/….csv`, `figures/….svg` and `.png`, and
        `index.html`.

    Raises:
        ConfigError: a pattern in `shown` that matches no figure.
        OfframpError: a file cannot be written.
    """
    root, chosen = user_path(folder, "the report's folder"), matching(figures, shown)
    pictures = display.track(list(product(ENDINGS, chosen)), "draw figures", show=progress)
    files = {f"figures/{name}.{ending}": render(figures[name], ending) for ending, name in pictures}
    texts = {name: table.markdown() for name, table in tables.items()}
    if table_files:
        files |= {f"tables/{name}.md": text.encode() for name, text in texts.items()}
        for name, rows in (data or {}).items():
            files[f"tables/{name}.csv"] = to_csv(rows)
    images = [f"![{name.replace('-', ' ')}](figures/{name}.svg)" for name in chosen]
    linked = [f'<a id="{name}"></a>\n\n{text.strip()}' for name, text in texts.items()]
    quotes = [f"> {plain_markdown(doubt)}" for doubt in doubts]
    paragraphs = [f"# {plain_markdown(title)}", *map(plain_markdown, lead), *quotes, *images, *linked]
    files["report.md"] = ("\n\n".join(paragraphs) + "\n").encode()
    if page:
        files["index.html"] = page(figures).encode()
    for name, content in files.items():
        with atomic_write(root / name) as draft:
            draft.write_bytes(content)
    return {name: root / name for name in files}


def check_report(folder: UserPath) -> None:
    """Raise an `OfframpError` for a folder that cannot be written, or whose files another program wrote."""
    root = user_path(folder, "the report's folder")
    check_writable(root)
    for name, mark in (("report.md", '<a id="'), ("index.html", "<title>offramp")):
        with suppress(FileNotFoundError):
            if mark not in (root / name).read_text(encoding="utf-8", errors="replace"):
                raise ConfigError(f"{root} holds another {name} than offramp's: give another folder")


def matching(names: Mapping[str, object], patterns: Sequence[str]) -> list[str]:
    """The names that match one of the patterns, in their own order."""
    for pattern in patterns:
        if pattern not in ALL_FIGURES and not any(fnmatchcase(name, pattern) for name in names):
            available = ", ".join(names) or "none"
            raise ConfigError(f"expected the name of a figure, got {pattern!r}: this report has {available}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def read_report_table(report: UserPath, name: str) -> str:
    """The Markdown of one table of a report that `write_report` wrote.

    Args:
        report: the `report.md`.
        name: of the table, as links to it have it: `report.md#NAME`.

    Raises:
        ConfigError: the report has no table of that name.
    """
    text = user_path(report).read_text(encoding="utf-8")
    names = re.findall(r'^<a id="(.+)"></a>$', text, flags=re.MULTILINE)
    if name not in names:
        raise ConfigError(unknown_name(f"table of {report}", name, names))
    return text.split(f'<a id="{name}"></a>\n\n')[1].split('\n\n<a id="')[0].rstrip("\n") + "\n"
