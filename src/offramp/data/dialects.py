"""Parse a delimited text in one dialect, by Python's strict reader: all rows have the header's values, or an error."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp._core.errors import DataError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}

# A quote inside a quoted value is doubled, or escaped by a backslash; or quotes are text like any other character.
QUOTING: dict[str, dict[str, Any]] = {
    "doubled": {},
    "escaped": {"escapechar": "\\"},
    "literal": {"quoting": csv.QUOTE_NONE},
    "literal, escaped": {"quoting": csv.QUOTE_NONE, "escapechar": "\\"},
}
OTHER_WAY = (
    "Give load_data the table itself, as pandas.read_csv reads it with your escapechar, quotechar or quoting, or save "
    "the file as JSON Lines"
)
_field_limit = threading.Lock()


@dataclass(frozen=True)
class Reading:
    """A file read in one dialect: the header, the rows, and the line that each row begins in."""

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    delimiter: str
    quoting: str  # a key of `QUOTING`


class DialectError(DataError):
    """A file does not have a dialect, or has two: `ambiguous`. `width` is its number of columns by the header."""

    def __init__(self, message: str, width: int = 0, *, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.width = width
        self.ambiguous = ambiguous


def parse(path: Path, text: str, delimiter: str, quoting: str, first_line: int) -> Reading:
    """All rows in one dialect; `DialectError` at the first row that does not have it."""
    # Line ends stay, as Python's csv module wants it.
    header, records = stream_rows(path, io.StringIO(text, newline=""), delimiter, quoting, first_line)
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in records:
        rows.append(row)
        lines.append(line)
    return Reading(header, rows, lines, delimiter, quoting)


def stream_rows(
    path: Path, lines: Iterable[str], delimiter: str, quoting: str, first_line: int
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and the rows with the line that each begins in, read as they are needed.

    Args:
        path: for messages.
        lines: physical lines with their ends.
        delimiter: between two values.
        quoting: a key of `QUOTING`.
        first_line: number of the header's line.

    Raises:
        DialectError: there is no header; or, from the iterator, a row that does not have the dialect.
    """
    records = _records(path, lines, delimiter, quoting, first_line)
    first = next(records, None)
    if first is None:
        raise DialectError(
            f"{path}, line {first_line}: expected a line of column names, got the end of the file"
        )
    header = _without_empty_end([name.strip() for name in first[1]])
    return header, _equal_rows(path, records, header, delimiter)


def _equal_rows(
    path: Path, records: Iterator[tuple[int, list[str]]], header: list[str], delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    """The rows, cut to the header; `DialectError` for one with another number of values."""
    width = 0  # of the rows, which may all end in empty values that the header does not have
    try:
        for line, row in records:
            width = width or max(len(row), len(header))
            if len(row) != width or any(row[len(header) :]):
                raise DialectError(_width_message(path, line, row, header, delimiter))
            yield line, row[: len(header)]
    except DialectError as error:
        error.width = len(header)
        raise


def _records(
    path: Path, lines: Iterable[str], delimiter: str, quoting: str, first_line: int
) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, after the line that each begins in."""
    physical = _Lines(lines)
    parser = csv.reader(physical, delimiter=delimiter, strict=True, **QUOTING[quoting])
    ending = ""  # of the first row
    while True:
        line = parser.line_num + first_line
        try:
            row = next(parser, None)
        except csv.Error as error:
            raise DialectError(_quote_message(path, line)) from error
        if row is None:
            return
        ending = ending or physical.ending
        if physical.ending not in (ending, ""):  # a carriage return may be the end of a value
            raise DialectError(
                f"{path}, line {line}: another line end than before: save the file with one kind of line ends"
            )
        if row and not (len(row) == 1 and row[0].isspace()):
            yield line, row


class _Lines:
    """Physical lines; `ending` is what ended the last one."""

    def __init__(self, stream: Iterable[str]) -> None:
        self.stream = stream
        self.ending = ""

    def __iter__(self) -> Iterator[str]:
        for line in self.stream:
            self.ending = line[len(line.rstrip("\r\n")) :][-2:]
            yield line


def _without_empty_end(names: list[str]) -> list[str]:
    while len(names) > 1 and not names[-1]:
        names = names[:-1]
    return names


def _width_message(path: Path, line: int, row: list[str], header: list[str], delimiter: str) -> str:
    name = DELIMITERS.get(delimiter, repr(delimiter))
    if row[0].startswith("#") or header[0].startswith("#"):
        cause = "Remove the lines that are comments"
    else:
        cause = f"Look for a quote that is not closed, or a {name} in a value without quotes"
    columns = ", ".join(map(repr, header[:6]))
    got = f"{len(row)}, unlike other rows" if len(row) == len(header) else str(len(row))
    return f"{path}, line {line}: expected {len(header)} values, for {columns}, got {got}. {cause}"


def _quote_message(path: Path, line: int) -> str:
    return (
        f"{path}, line {line}: a quote is not closed, or stands inside a quoted value: close it, and write each quote "
        f'inside a value twice (""). {OTHER_WAY}'
    )


@contextmanager
def long_fields(size: int) -> Iterator[None]:
    """Let the parser read values of any length; the limit is the whole process's, so it is set back."""
    with _field_limit:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, size))
        try:
            yield
        finally:
            csv.field_size_limit(before)
