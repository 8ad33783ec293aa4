"""Read CSV, TSV, JSON, JSON Lines and Parquet: one file, or a file for each split."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offramp._core.damaged_files import file_problem
from offramp._core.errors import DataError, unknown_name
from offramp.data.rows import Table, require_rows

SPLIT_NAMES: dict[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("calibration", "calib", "cal"), "calibration"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("validation_matched", "dev_matched"), "validation"),
    **dict.fromkeys(("validation_mismatched", "dev_mismatched"), "validation_mismatched"),
    "test": "test",
}


def read_file(path: Path) -> Table:
    """All columns of a .csv, .tsv, .jsonl (.ndjson), .json or .parquet file; text is UTF-8.

    Raises:
        DataError: an unknown suffix, or a file that is empty, malformed, not UTF-8, has no rows, or repeats a column.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: {unknown_name('file type', path.suffix, READERS)}")
    table = reader(path)
    require_rows(table)
    return table


def split_files(folder: Path) -> dict[str, Path]:
    """Split name to file, for the files of a folder that are named after a split."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = SPLIT_NAMES.get(path.stem.lower())
        if split is None or path.suffix.lower() not in READERS or not path.is_file():
            continue
        if split in files:
            raise DataError(
                f"{folder}: both {files[split].name} and {path.name} could be {split}; keep one of them"
            )
        files[split] = path
    return files


def named_splits(splits: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with each split under its standard name; any other name is an error."""
    named: dict[str, Any] = {}
    for name, value in splits.items():
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            raise DataError(unknown_name("split", name, set(SPLIT_NAMES.values())))
        if split in named:
            raise DataError(f"two entries are called {split} ({', '.join(splits)}); keep one of them")
        named[split] = value
    return named


def read_text(path: Path) -> str:
    """A text file's content; `DataError` if it is empty or not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{path}: expected UTF-8, got the byte 0x{data[error.start]:02x} in line {line}{hint}; "
            "save the file as UTF-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty; give a file with at least a few examples")
    return text


def tab_separated(path: Path) -> list[list[str]]:
    """All lines, split at tabs. Only line feeds end a line, since texts contain other separators."""
    lines = [line.removesuffix("\r").split("\t") for line in read_text(path).split("\n")]
    return [line for line in lines if line != [""]]


def _read_tsv(path: Path) -> Table:
    """Tab-separated; quotes count only where every field that opens with one also ends with one."""
    lines = tab_separated(path)
    ragged = len({len(line) for line in lines}) > 1
    opened = [field for line in lines for field in line if field.startswith('"')]
    if ragged or (opened and all(re.fullmatch(r'"(?:[^"]|"")*"', field) for field in opened)):
        return _parse_delimited(path, "\t")
    return _columns(path, lines[0], list(zip(*lines[1:], strict=True)))


def _parse_delimited(path: Path, delimiter: str) -> Table:
    """With quoting, by pyarrow: strict about the number of fields. Every column is read as text."""
    import pyarrow as pa
    from pyarrow import csv

    text = read_text(path)
    data = f"{text}\n".encode()  # pyarrow finds no header in a single line without an end
    width = text.count(delimiter, 0, text.find("\n") if "\n" in text else None) + 1
    types = {f"f{i}": pa.string() for i in range(width)}
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
            # One block: a row may be longer than the default block.
            read_options=csv.ReadOptions(block_size=len(data) + 1, autogenerate_column_names=True),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowInvalid as error:
        said = str(error).replace("\n", " ")[:200]
        raise DataError(
            f"{path}: {said}. Look for a quote that is not closed, or a field too many"
        ) from error
    columns = [column.to_pylist() for column in table.columns]
    return _columns(path, [column[0] for column in columns], [column[1:] for column in columns])


def _columns(path: Path, header: list[str], values: list[Any]) -> Table:
    names = [name.strip() for name in header]
    _require_distinct(path, names)
    lists = [list(column) for column in values] or [[] for _ in names]
    return Table(dict(zip(names, lists, strict=True)), str(path), typed=False)


def _require_distinct(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: the column {twice[0]!r} occurs twice; rename one. Columns: {', '.join(names)}"
        )


def _read_json(path: Path) -> Table:
    """One array of objects, or an object on each line."""
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return _read_json_lines(path)
    try:
        records = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    return _records(path, records)


def _read_json_lines(path: Path) -> Table:
    records = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: expected one JSON object, got {line[:60]!r}") from error
    return _records(path, records)


def _records(path: Path, records: list[Any]) -> Table:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}, entry {number}: expected an object with columns, got {str(record)[:60]!r}"
            )
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table({name: [record.get(name) for record in records] for name in names}, str(path))


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        _require_distinct(path, table.column_names)
        return Table({name: table[name].to_pylist() for name in table.column_names}, str(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} {file_problem(path, error)}: give a Parquet file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a text column is not UTF-8 ({error})") from error


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": lambda path: _parse_delimited(path, ","),
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
