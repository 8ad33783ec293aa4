"""Write rows with answers in parts, and join the parts into one file."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from offramp._core.errors import DataError
from offramp.data.dialects import QUOTING

ARROW = ("parquet", "arrow")


def with_answers(chunk: Any, answers: Mapping[str, Sequence[Any]], form: str) -> Any:
    """The rows with added columns, in the form that a format is written from: dicts, or an Arrow table."""
    import pyarrow as pa

    table = not isinstance(chunk, list)
    if form not in ARROW:
        rows = chunk.to_pylist() if table else chunk
        return [
            {**row, **dict(zip(answers, values, strict=True))}
            for row, values in zip(rows, zip(*answers.values(), strict=True), strict=True)
        ]
    try:
        columns = chunk if table else pa.Table.from_pylist(_same_keys(chunk))
        for name, values in answers.items():
            columns = columns.append_column(name, pa.array(values))
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise DataError(
            f"the rows do not fit in {form}, where a column has one type ({' '.join(str(error).split()):.200}): "
            "write .jsonl"
        ) from error
    return columns


def _same_keys(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


class TextWriter:
    """Writes JSON Lines, JSON, CSV or TSV.

    Args:
        form: `jsonl`, `json`, `csv` or `tsv`.
        columns: names of all columns, which a delimited file begins with.
        dialect: delimiter and quoting of the input, which the output keeps; None for the usual ones.
    """

    def __init__(self, form: str, columns: Sequence[str], dialect: tuple[str, str] | None = None) -> None:
        self.form, self.columns = form, columns
        self.delimiter, self.quoting = dialect or ("\t" if form == "tsv" else ",", "doubled")

    def header(self) -> bytes:
        """What stands before the rows."""
        if self.form in ("csv", "tsv"):
            return self.rows([dict(zip(self.columns, self.columns, strict=True))])
        return b""

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Rows as lines."""
        if self.form in ("jsonl", "json"):
            return b"".join(_json_line(row) for row in rows)
        text = io.StringIO(newline="")
        options: dict[str, Any] = {
            "delimiter": self.delimiter,
            "lineterminator": "\n",
            **QUOTING[self.quoting],
        }
        if "quoting" in options:  # quotes are text
            options["quotechar"] = None
        writer = csv.writer(text, **options)
        # A lone carriage return ends a line unless it is quoted, which Python's writer forgets.
        careful = csv.writer(text, **{"quoting": csv.QUOTE_ALL, **options})
        for row in rows:
            if foreign := [name for name in row if name not in self.columns]:
                raise DataError(
                    f"expected the columns {', '.join(map(repr, self.columns))} in all rows, got {foreign[0]!r} later: "
                    "write .jsonl"
                )
            try:
                values = [_csv_value(row.get(name)) for name in self.columns]
                (careful if any("\r" in str(value) for value in values) else writer).writerow(values)
            except csv.Error as error:
                raise DataError(
                    f"a value does not fit in the input's kind of {self.form} ({error}): write .jsonl"
                ) from error
        return _encode(text.getvalue())

    def write_part(self, path: Path, rows: Any) -> None:
        path.write_bytes(self.rows(rows))

    def join(self, files: Iterable[Path], target: Path) -> None:
        """Write the whole file."""
        with target.open("wb") as whole:
            whole.write(b"[\n" if self.form == "json" else self.header())
            first = True
            for file in files:
                with file.open("rb") as rows:
                    if self.form != "json":
                        shutil.copyfileobj(rows, whole)
                        continue
                    for line in rows:
                        whole.write(line.rstrip(b"\n") if first else b",\n" + line.rstrip(b"\n"))
                        first = False
            if self.form == "json":
                whole.write(b"\n]\n")


class ArrowWriter:
    """Writes Parquet, or Arrow's file format."""

    def __init__(self, form: str) -> None:
        self.form = form

    def write_part(self, path: Path, table: Any) -> None:
        import pyarrow as pa

        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)

    def join(self, files: Iterable[Path], target: Path) -> None:
        """Write the whole file; a column that later parts have in another type is widened where that loses nothing."""
        import pyarrow as pa
        from pyarrow import parquet

        files = [*files]
        try:
            schemas = [_read(file).schema for file in files]
            schema = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
            opened = parquet.ParquetWriter if self.form == "parquet" else pa.ipc.new_file
            with opened(str(target), schema) as writer:
                for file in files:
                    writer.write_table(_widened(_read(file), schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"the rows do not fit in {self.form}, where a column has one type "
                f"({' '.join(str(error).split()):.200}): write .jsonl"
            ) from error


def _read(file: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()


def _widened(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _csv_value(value: Any) -> Any:
    """A value as CSV writes it: nothing for a missing one, JSON for lists and objects, text as it is."""
    return (
        json.dumps(value, ensure_ascii=False, default=_json_value)
        if isinstance(value, list | dict)
        else value
    )


def _json_line(row: Mapping[str, Any]) -> bytes:
    line = json.dumps(row, ensure_ascii=False, default=_json_value)
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write as an escape alone
        return json.dumps(row, default=_json_value).encode() + b"\n"


def _json_value(value: Any) -> Any:
    """A value of Arrow that JSON lacks."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise DataError(f"a value of type {type(value).__name__} does not fit in JSON: write .parquet")


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError("a lone surrogate does not fit in UTF-8: write .jsonl") from error
