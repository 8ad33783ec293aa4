"""Read the rows of a file a chunk at a time, with every column that it has."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from offramp._core.damaged_files import file_problem
from offramp._core.errors import ConfigError, DataError, unknown_name
from offramp.data.delimited import choose_reading, stated_delimiter
from offramp.data.dialects import long_fields, stream_rows
from offramp.data.json_files import parse_line, read_json
from offramp.data.rows import require_distinct

STDIN = Path("-")
HEAD = 1 << 20  # characters of a delimited file that show its dialect
LONGEST_FIELD = 1 << 28
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "txt",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
Chunk = Any  # a list of rows as dicts, or a pyarrow.Table


@dataclass(frozen=True)
class RowFile:
    """An open file of rows.

    Attributes:
        columns: names of the columns; of JSON Lines, those of the first row.
        chunks: the rows in order, each chunk at most as long as asked for: dicts, or an Arrow table. The same file
            always gives the same chunks.
        dialect: delimiter and quoting of a delimited file.
        position: share of the file that was read, from 0 to 1; None if unknown.
    """

    columns: list[str]
    chunks: Iterator[Chunk]
    position: Callable[[], float | None]
    dialect: tuple[str, str] | None = None


def format_of(path: Path, name: str | None = None) -> str:
    """The format of a file by its ending, or by a given name.

    Raises:
        ConfigError: an unknown ending or name.
    """
    if name is not None:
        if name not in FORMATS.values():
            raise ConfigError(unknown_name("format", name, {*FORMATS.values()}))
        return name
    if path == STDIN:
        return "txt"
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: {unknown_name('file type', path.suffix, FORMATS)}; or give --format")
    return FORMATS[path.suffix.lower()]


def open_rows(path: Path, form: str, size: int, stack: ExitStack) -> RowFile:
    """Open a file, or standard input for `-`.

    Args:
        path: the file.
        form: its format, a value of `FORMATS`.
        size: most rows of a chunk.
        stack: closes the file.

    Raises:
        DataError: the file is damaged, not UTF-8, or of another format; the chunks may raise it too.
    """
    if form in ("parquet", "arrow"):
        return _open_arrow(path, form, size, stack)
    if form == "json":
        if path == STDIN:
            raise ConfigError("JSON is read as a whole: give a file, or JSON Lines with --format jsonl")
        columns = read_json(path).columns
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return RowFile([*columns], _chunks(rows, size), lambda: None)
    text = _open_text(path, form, stack)
    position = _position(path, text)
    if form in DELIMITERS:
        return _open_delimited(path, text, DELIMITERS[form], size, position, stack)
    if form == "txt":
        lines = ({"text": line.removesuffix("\n").removesuffix("\r")} for line in _utf8(path, text))
        return RowFile(["text"], _chunks(lines, size), position)
    records = (
        parse_line(path, number, line)
        for number, line in enumerate(_utf8(path, text), start=1)
        if line.strip()
    )
    first = [*islice(records, 1)]
    return RowFile([*(first[0] if first else ())], _chunks(chain(first, records), size), position)


def _chunks(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    source = iter(rows)
    while chunk := [*islice(source, size)]:
        yield chunk


def _open_text(path: Path, form: str, stack: ExitStack) -> TextIO:
    """The file as UTF-8 text; line ends stay as they are."""
    newline = "" if form in DELIMITERS else "\n"
    if path == STDIN:
        text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline=newline)
        stack.callback(text.detach)  # standard input stays open
        return text
    try:
        file = stack.enter_context(path.open(encoding="utf-8-sig", newline=newline))
    except OSError as error:
        raise DataError(f"{path} {file_problem(path, error)}: give a file of texts") from error
    if problem := file_problem(path):  # a folder, an archive, a web page
        raise DataError(f"{path} {problem}: give a file of texts")
    return file


def _utf8(path: Path, text: Iterable[str]) -> Iterator[str]:
    """The lines; `DataError` for bytes that are not UTF-8."""
    try:
        for line in text:  # noqa: UP028 (`yield from` would close the file with the generator)
            yield line
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path}: expected UTF-8, got the byte 0x{byte:02x}: save the file as UTF-8"
        ) from error


def _position(path: Path, text: TextIO) -> Callable[[], float | None]:
    size = 0 if path == STDIN or not path.is_file() else path.stat().st_size
    return lambda: text.buffer.tell() / size if size else None


def _open_delimited(
    path: Path,
    text: TextIO,
    usual: str,
    size: int,
    position: Callable[[], float | None],
    stack: ExitStack,
) -> RowFile:
    """A delimited file. Its first lines show its dialect, which all other lines must have."""
    lines = _utf8(path, text)
    read, head = 0, []
    for line in lines:
        head.append(line)
        if (read := read + len(line)) > HEAD:
            break
    sample = _whole_rows("".join(head), read > HEAD)
    if not sample.strip():
        raise DataError(f"{path} is empty: give a file with a line of column names")
    reading = choose_reading(path, sample, usual)
    stated = stated_delimiter(sample)
    stack.enter_context(long_fields(LONGEST_FIELD))
    header, records = stream_rows(
        path,
        chain(head[1:] if stated else head, lines),
        reading.delimiter,
        reading.quoting,
        2 if stated else 1,
    )
    require_distinct(str(path), header)
    rows = (dict(zip(header, row, strict=True)) for _, row in records)
    return RowFile(header, _chunks(rows, size), position, (reading.delimiter, reading.quoting))


def _whole_rows(text: str, cut: bool) -> str:
    """The text up to a line end that is not inside quotes, if the text was cut off."""
    if not cut:
        return text
    quotes, end, last = text.count('"'), len(text), len(text)
    while end > 0 and quotes % 2:
        end = max(text.rfind("\n", 0, last - 1), text.rfind("\r", 0, last - 1)) + 1
        quotes, last = quotes - text.count('"', end, last), end
    return text[:end] or text  # quotes that are text may be odd everywhere


def _open_arrow(path: Path, form: str, size: int, stack: ExitStack) -> RowFile:
    """A Parquet file, or Arrow's file or stream format."""
    import pyarrow as pa
    from pyarrow import parquet

    if path == STDIN:
        raise ConfigError(f"{form} needs a file: give its path instead of -")
    done = 0

    def chunks(batches: Iterable[Any]) -> Iterator[Any]:
        nonlocal done
        try:
            for batch in batches:
                for start in range(0, batch.num_rows, size):
                    table = pa.Table.from_batches([batch.slice(start, size)])
                    done += table.num_rows
                    yield table
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} {file_problem(path, error)}: give a whole file") from error

    try:
        if form == "parquet":
            file = stack.enter_context(parquet.ParquetFile(path))
            schema, rows, batches = file.schema_arrow, file.metadata.num_rows, file.iter_batches(size)
        else:
            schema, rows, batches = _arrow_batches(path, stack)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} {file_problem(path, error)}: give a {form} file") from error
    require_distinct(str(path), schema.names)
    return RowFile(schema.names, chunks(batches), lambda: done / rows if rows else None)


def _arrow_batches(path: Path, stack: ExitStack) -> tuple[Any, int, Iterable[Any]]:
    """Schema, number of rows (0 if unknown) and batches of Arrow's file format, or of its stream format."""
    import pyarrow as pa

    source = stack.enter_context(pa.memory_map(str(path)))
    if source.read(6) != b"ARROW1":
        source.seek(0)
        stream = stack.enter_context(pa.ipc.open_stream(source))
        return stream.schema, 0, stream
    file = stack.enter_context(pa.ipc.open_file(source))
    numbers = range(file.num_record_batches)
    rows = sum(file.get_batch(number).num_rows for number in numbers)  # mapped, so nothing is read
    return file.schema, rows, (file.get_batch(number) for number in numbers)
