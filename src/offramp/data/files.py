"""Read CSV, TSV, JSON, JSON Lines, Parquet and Arrow: one file, or a file for each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offramp._core.damaged_files import file_problem
from offramp._core.errors import DataError, unknown_name
from offramp.data.delimited import read_delimited
from offramp.data.json_files import read_json
from offramp.data.rows import Table, require_distinct, require_rows

SPLIT_NAMES: dict[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("calibration", "calib", "cal"), "calibration"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("validation_matched", "dev_matched"), "validation"),
    **dict.fromkeys(("validation_mismatched", "dev_mismatched"), "validation_mismatched"),
    "test": "test",
}


def read_file(path: Path) -> Table:
    """All columns of a file in one of the formats of `READERS`; text is UTF-8.

    Raises:
        DataError: an unknown suffix, or a file that is empty, malformed, not UTF-8, has no rows, or repeats a column.
    """
    suffix = path.suffix.lower()
    reader = READERS.get(suffix)
    if reader is None:
        remedy = f". To read this file, {_NOT_READ[suffix]}" if suffix in _NOT_READ else ""
        raise DataError(f"{path}: {unknown_name('file type', path.suffix, READERS)}{remedy}")
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


def named_splits(splits: Mapping[Any, Any]) -> dict[str, Any]:
    """The mapping with each split under its standard name; any other name is an error."""
    named: dict[str, Any] = {}
    for name, value in splits.items():
        split = SPLIT_NAMES.get(str(name).lower())
        if split is None:
            raise DataError(unknown_name("split", str(name), set(SPLIT_NAMES.values())))
        if split in named:
            raise DataError(
                f"two entries are called {split} ({', '.join(map(str, splits))}); keep one of them"
            )
        named[split] = value
    return named


def arrow_table(table: Any, where: str) -> Table:
    """All columns of an Arrow table as Python values.

    Raises:
        DataError: a column that occurs twice, or a text that is not UTF-8.
    """
    require_distinct(where, table.column_names)
    try:
        return Table({name: table[name].to_pylist() for name in table.column_names}, where)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: a text column is not UTF-8 ({error})") from error


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return arrow_table(parquet.read_table(path), str(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} {file_problem(path, error)}: give a Parquet file") from error


def _read_arrow(path: Path) -> Table:
    """Arrow's file format, which is Feather's too, or its stream format, which `datasets` writes."""
    import pyarrow as pa

    content = pa.py_buffer(path.read_bytes())
    open_content = pa.ipc.open_file if content[:6].to_pybytes() == b"ARROW1" else pa.ipc.open_stream
    try:
        return arrow_table(open_content(content).read_all(), str(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} {file_problem(path, error)}: give an Arrow or Feather file") from error


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": lambda path: read_delimited(path, ","),
    ".tsv": lambda path: read_delimited(path, "\t"),
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
}

_NOT_READ = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"), "decompress it first"),
    **dict.fromkeys(
        (".xlsx", ".xls", ".ods"), "save the sheet as CSV, or give load_data what pandas.read_excel reads"
    ),
    **dict.fromkeys((".txt", ".dat", ".data"), "rename it to .csv or .tsv if it has columns"),
    **dict.fromkeys((".pkl", ".pickle"), "give load_data the table itself, or save it as Parquet"),
}
