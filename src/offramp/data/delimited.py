"""Read CSV and TSV. The file itself shows its delimiter and its quoting; a file that does not is refused.

A wrong guess would move texts to other texts' labels. So a file is read in every dialect that it may have, by Python's
strict reader, and each reading must give all rows the header's number of values. Readings that differ are an error.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from offramp._core.errors import DataError
from offramp.data.decoding import read_text
from offramp.data.dialects import DELIMITERS, OTHER_WAY, DialectError, Reading, long_fields, parse
from offramp.data.rows import NUMBER, Table, require_distinct

_SEPARATOR = re.compile(r'"?sep=([^\w\r\n"\\])"?(?:\r\n|\r|\n)', re.IGNORECASE)  # Excel's first line


def read_delimited(path: Path, usual: str) -> Table:
    """All columns of a delimited file as text.

    Args:
        path: a file whose first line has the column names. The delimiter is a comma, tab, semicolon or vertical bar, or
            the one that a line `sep=…` above the header gives.
        usual: the delimiter that the file's suffix stands for, which error messages assume.

    Raises:
        DataError: the file is empty or not UTF-8, repeats a column, or has no dialect or several.
    """
    reading = choose_reading(path, read_text(path), usual)
    _require_rows_only(path, reading)
    return _table(path, reading)


def choose_reading(path: Path, text: str, usual: str) -> Reading:
    """The one reading of a file's text, or of its first lines; arguments and errors as of `read_delimited`."""
    _require_one_line_end(path, text)
    stated = stated_delimiter(text)
    delimiters = [stated[1]] if stated else sorted(DELIMITERS, key=lambda delimiter: delimiter != usual)
    content = text[stated.end() :] if stated else text
    first_line = 2 if stated else 1
    readings: dict[str, Reading] = {}
    failures: list[DialectError] = []
    with long_fields(len(content)):
        for delimiter in delimiters:
            try:
                readings[delimiter] = _read(path, content, delimiter, first_line)
            except DialectError as error:
                failures.append(error)
    wide = {delimiter: reading for delimiter, reading in readings.items() if len(reading.header) > 1}
    for failure in failures:
        if failure.ambiguous and failure.width > 1:
            raise failure
    if len(wide) > 1:
        names = " and ".join(DELIMITERS[delimiter] for delimiter in wide)
        example = next(iter(wide))
        raise DataError(
            f"{path}, line {first_line}: the delimiter is not clear, {names} are possible: add the line sep={example} "
            "at the top, with the right one"
        )
    if failures and not wide:
        widest = max(failures, key=lambda failure: failure.width)
        if widest.width > 1 or not readings:
            raise widest
    return next(iter((wide or readings).values()))


def stated_delimiter(text: str) -> re.Match[str] | None:
    """The line `sep=…` that may begin a text; its group 1 is the delimiter."""
    return _SEPARATOR.match(text)


def _require_one_line_end(path: Path, text: str) -> None:
    """Raise `DataError` where a line end that is not the file's own cannot be told from text."""
    first = re.search(r"\r\n|\r|\n", text)
    if first is None or "\n" not in text or not re.search(r"\r(?!\n)", text):
        return
    doubtful = first if first[0] == "\r" else re.search(r"\\[\r\n]", text)
    if doubtful:
        line = len(re.findall(r"\r\n|\r|\n", text[: doubtful.start()])) + 1
        raise DataError(
            f"{path}, line {line}: the file has several kinds of line ends: save it with line feeds. {OTHER_WAY}"
        )


def _read(path: Path, text: str, delimiter: str, first_line: int) -> Reading:
    """The one reading of a text with a delimiter, whatever its quoting."""
    readings: dict[str, Reading] = {}
    failures: dict[str, DialectError] = {}
    for quoting in _possible_quoting(text, delimiter):
        try:
            readings[quoting] = parse(path, text, delimiter, quoting, first_line)
        except DialectError as error:
            failures[quoting] = error
    quoted = [readings[name] for name in ("doubled", "escaped") if name in readings]
    literal = [readings[name] for name in ("literal", "literal, escaped") if name in readings]
    if not quoted and (delimiter != "\t" or not literal):  # quotes are text in tab-separated files alone
        raise failures["doubled"]
    chosen, *others = quoted or literal
    for other in others:
        _require_equal(path, chosen, other)
    if quoted:
        for other in literal:
            _require_same_lines(path, chosen, other, delimiter)
    return chosen


def _possible_quoting(text: str, delimiter: str) -> list[str]:
    """The kinds of quoting that can make a difference."""
    styles = ["doubled", *(["literal"] if '"' in text else [])]
    if _only_escapes(text, delimiter):
        styles += [{"doubled": "escaped", "literal": "literal, escaped"}[style] for style in styles]
    return styles


def _only_escapes(text: str, delimiter: str) -> bool:
    """Whether there are backslashes, and each may be an escape: what follows it is special in the format."""
    pairs = set(re.findall(r"\\(.|\Z)", text, re.DOTALL))
    return bool(pairs) and pairs <= {"\\", '"', "\r", "\n", delimiter}


def _require_equal(path: Path, plain: Reading, escaped: Reading) -> None:
    """Raise `DialectError` at the first row that differs if backslashes are escapes."""
    if (plain.header, plain.rows) == (escaped.header, escaped.rows):
        return
    pairs = zip(plain.rows, escaped.rows, plain.lines, strict=False)
    line = next((line for a, b, line in pairs if a != b), plain.lines[-1] if plain.lines else 1)
    message = f"{path}, line {line}: the backslash may be text or an escape. {OTHER_WAY}"
    raise DialectError(message, len(plain.header), ambiguous=True)


def _require_same_lines(path: Path, quoted: Reading, literal: Reading, delimiter: str) -> None:
    """Raise `DialectError` if rows have several lines, and these lines would be rows too if quotes were text.

    With as many rows, the two readings differ in the quotes around values only.
    """
    if len(quoted.rows) == len(literal.rows):
        return
    starts = zip(quoted.lines[1:], literal.lines[1:], strict=False)
    row = next((row for row, (after, other) in enumerate(starts) if after != other), len(quoted.rows) - 1)
    if delimiter != "\t" and any('"' in value for value in quoted.rows[row]):
        return  # a quote in the value is doubled in the file, which text without quoting hardly is
    line = quoted.lines[row]
    raise DialectError(
        f"{path}, line {line}: the quotes may be text, or enclose a value of several lines. {OTHER_WAY}",
        len(quoted.header),
        ambiguous=True,
    )


def _require_rows_only(path: Path, reading: Reading) -> None:
    """Raise `DataError` for a line that is no row: the header once more, or a comment with a delimiter in it."""
    comments = []
    for line, row in zip(reading.lines, reading.rows, strict=True):
        if [value.strip() for value in row] == reading.header:
            raise DataError(f"{path}, line {line}: the header is there once more: remove it")
        if row[0].startswith("# "):
            comments.append((line, row))
    counts = [Counter(column) for column in zip(*reading.rows, strict=True)] if comments else []
    for line, row in comments:  # no class and no number: what follows the delimiter is a stretch of text
        others = list(zip(row, counts, strict=True))[1:]
        if others and all(
            count[value] == 1 and not NUMBER.fullmatch(value.strip()) for value, count in others
        ):
            raise DataError(
                f"{path}, line {line}: expected a row, got {row[0]!r:.60}, which looks like a comment: remove it"
            )


def _table(path: Path, reading: Reading) -> Table:
    require_distinct(str(path), reading.header)
    columns = list(zip(*reading.rows, strict=True)) or [() for _ in reading.header]
    return Table(dict(zip(reading.header, map(list, columns), strict=True)), str(path), typed=False)
