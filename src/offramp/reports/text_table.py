"""Tables for people: the same cells as Markdown, in the terminal, or in the HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from offramp._core.markdown import plain_markdown
from offramp._core.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

NOTHING = "–"
MINUS = "−"


@dataclass(frozen=True)
class TextTable:
    """A table of strings.

    Attributes:
        header: names of the columns.
        rows: each with as many cells.
        note: one or two sentences on how to read it.
        words: number of columns with words, from the left; the others hold numbers and are aligned right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1

    def markdown(self) -> str:
        """The table as GitHub Markdown, its title in bold above and its note below."""
        marks = [":--" if i < self.words else "--:" for i in range(len(self.header))]
        lines = [[plain_markdown(cell) for cell in row] for row in (self.header, *self.rows)]
        body = ["| " + " | ".join(line) + " |" for line in (lines[0], marks, *lines[1:])]
        title = f"**{plain_markdown(self.title)}**"
        parts = [title, "\n".join(body), *([plain_markdown(self.note)] if self.note else [])]
        return "\n\n".join(parts) + "\n"

    def rich(self) -> Table:
        """The table for the terminal; print it with a `rich.console.Console`."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(one_line(self.title)), title_justify="left", title_style="bold")
        if self.note:
            table.caption, table.caption_justify = Text(one_line(self.note)), "left"
        for i, name in enumerate(self.header):
            justify: Literal["left", "right"] = "left" if i < self.words else "right"
            table.add_column(Text(one_line(name)), justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        return table


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    return (str(value) if isinstance(value, int) else f"{value:.{digits}f}").replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign."""
    return NOTHING if value is None or math.isnan(value) else f"{value:+.{digits}f}".replace("-", MINUS)


def interval(
    estimate: float | None, low: float | None, high: float | None, digits: int = 3, *, sign: bool = False
) -> str:
    """An estimate, with the ends of its interval in brackets where all three are defined."""
    write = signed if sign else number
    shown, *ends = (write(value, digits) for value in (estimate, low, high))
    return shown if NOTHING in (shown, *ends) else f"{shown} [{', '.join(ends)}]"


def change(before: float, after: float, digits: int = 3) -> str:
    """A number before and after."""
    return f"{number(before, digits)} → {number(after, digits)}"


def doubts_table(doubts: Iterable[str]) -> TextTable:
    """All doubts, one per row."""
    rows = tuple((doubt,) for doubt in doubts)
    return TextTable("Doubts", ("what docs/doubts.md explains by the name in brackets",), rows)
