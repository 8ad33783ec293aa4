"""Tables on a terminal: nothing in a cell is interpreted, and nothing in a cell is cut."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from offramp._core.text import one_line

NUMBERS = "0123456789+-−.–"  # how a number begins, or a missing one
FRAME = 3  # characters around each cell
Row = Sequence[str]


def print_table(console: Console, title: str, header: Row, rows: Sequence[Row], *, names: int = 1) -> None:
    """Print a table; columns that do not fit follow in further tables, whose rows are named again.

    If not even the names and one other column fit, each row becomes a block of lines. A pipe or file gets one table.

    Args:
        console: where to print.
        title: a line above the table.
        header: names of the columns.
        rows: each with as many cells.
        names: how many columns at the left name a row.
    """
    header, *lines = ([one_line(cell) for cell in row] for row in (header, *rows))
    console.print(Text(one_line(title), style="bold"), soft_wrap=True)
    widths = [max(map(cell_len, column)) + FRAME for column in zip(header, *lines, strict=True)]
    groups = _groups(widths, names, _room(console))
    for group in groups:
        cells = [[row[k] for k in group] for row in (header, *lines)]
        console.print(make_table(cells[0], cells[1:], names=names), crop=False)
    for row in lines if not groups else ():
        console.print(Text(", ".join(row[:names]), style="bold"), soft_wrap=True)
        for name, cell in zip(header[names:], row[names:], strict=True):
            console.print(f"  {name}: {cell}", soft_wrap=True)


def make_table(header: Row, rows: Sequence[Row], *, names: int = 1) -> Table:
    """A table as wide as its cells, whatever the width of the terminal; arguments as in `print_table`."""
    columns = list(zip(header, *rows, strict=True))
    table = Table(width=sum(max(map(cell_len, column)) + FRAME for column in columns) + 1)
    for k, (name, *cells) in enumerate(columns):
        words = k < names or any(cell and cell[0] not in NUMBERS for cell in cells)
        table.add_column(Text(name), justify="left" if words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _room(console: Console) -> float:
    """The width of the terminal, or of the variable COLUMNS; a pipe has no limit."""
    return console.width if console.is_terminal or os.environ.get("COLUMNS") else float("inf")


def _groups(widths: Sequence[int], names: int, room: float) -> list[list[int]]:
    """The columns of each table, the names in front; empty where a column does not fit beside the names."""
    front = list(range(names))
    taken = sum(widths[:names]) + 1
    if taken + max(widths[names:], default=0) > room:
        return []
    groups, width = [front[:]], taken
    for column in range(names, len(widths)):
        if width + widths[column] > room:
            groups, width = [*groups, front[:]], taken
        groups[-1].append(column)
        width += widths[column]
    return groups
