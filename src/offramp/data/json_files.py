"""Read JSON in its usual tabular forms, and JSON Lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offramp._core.errors import DataError
from offramp.data.decoding import read_text
from offramp.data.rows import Table

_FORMS = "an object on each line, or an array of objects (pandas: to_json(orient='records'))"


def read_json(path: Path) -> Table:
    """The columns of a JSON file, whichever form its suffix stands for.

    The forms are objects on lines, an array of objects, an object of columns, an object with the rows under one key,
    and what `to_json` of pandas writes, except the orient `values`, which has no column names.

    Raises:
        DataError: the file is empty, not JSON, nested too deeply, or in another form; or a name occurs twice in an
            object.
    """
    text = read_text(path)
    try:
        content = _parse(text, str(path))
    except json.JSONDecodeError as error:
        # Lines end at line feeds only: texts contain other separators.
        lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
        if len(lines) == 1 or (error.msg != "Extra data" and path.suffix.lower() == ".json"):
            raise DataError(
                f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno})"
            ) from error
        return records_table([parse_line(path, number, line) for number, line in lines], str(path))
    return _table(content, str(path))


def records_table(records: Sequence[Any], where: str) -> Table:
    """Objects as columns; a name that an object lacks has the value None.

    Raises:
        DataError: an entry that is not an object.
    """
    for number, record in enumerate(records, start=1):
        _require_object(record, f"{where}, entry {number}")
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table({name: [record.get(name) for record in records] for name in names}, where)


def parse_line(path: Path, number: int, line: str) -> dict[str, Any]:
    """The object on a line of JSON Lines; `DataError` for anything else."""
    where = f"{path}, line {number}"
    try:
        record = _parse(line, where)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: expected one JSON object, got {line[:60]!r}") from error
    _require_object(record, where)
    return dict(record)


def _require_object(record: Any, where: str) -> None:
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: expected an object with columns, got {str(record)[:60]!r}: write {_FORMS}")


def _parse(text: str, where: str) -> Any:
    """The content; a name twice in one object would lose a value, so it is an error."""

    def distinct(items: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(items)
        if len(content) < len(items):
            name = Counter(name for name, _ in items).most_common(1)[0][0]
            raise DataError(f"{where}: the name {name!r} occurs twice in {str(content)[:60]}: remove one")
        return content

    try:
        return json.loads(text, object_pairs_hook=distinct)
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply for a table: write {_FORMS}") from error


def _table(content: Any, where: str) -> Table:
    """The table in a whole file's content."""
    if isinstance(content, list):
        return records_table(content, where)
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a table, got {str(content)[:60]!r}: write {_FORMS}")
    if set(content) in ({"columns", "data"}, {"columns", "index", "data"}):
        return _split_table(content, where)
    tables = [name for name, value in content.items() if _is_objects(value)]
    if len(tables) > 1:
        names = ", ".join(map(repr, tables))
        raise DataError(
            f"{where}: expected one table, got one under each of {names}: save each as its own file"
        )
    if tables:
        return records_table(content[tables[0]], where)
    if all(isinstance(value, dict) for value in content.values()):
        return _keyed_table(content, where)
    if any(isinstance(value, list) for value in content.values()):
        return columns_table(content, where)
    return records_table([content], where)


def columns_table(columns: Mapping[str, Any], where: str) -> Table:
    """Lists by column name; `DataError` if they are not lists of one length."""
    sizes = {name: len(values) if isinstance(values, list) else None for name, values in columns.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name!r} {'no list' if size is None else size}" for name, size in sizes.items())
        raise DataError(f"{where}: expected columns of one length, got {shown:.200}: write {_FORMS}")
    return Table(dict(columns), where)


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _split_table(content: dict[str, Any], where: str) -> Table:
    """The orient `split` of pandas: column names, and a list of values for each row."""
    names, rows = content["columns"], content["data"]
    if not isinstance(names, list) or not isinstance(rows, list):
        raise DataError(f"{where}: expected lists under 'columns' and 'data': write {_FORMS}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(names):
            raise DataError(
                f"{where}, entry {number} of 'data': expected {len(names)} values, got {str(row)[:60]!r}"
            )
    return records_table([dict(zip(map(str, names), row, strict=True)) for row in rows], where)


def _keyed_table(content: dict[str, dict[str, Any]], where: str) -> Table:
    """The orients `columns` and `index` of pandas: values by column and row number, or by row number and column."""
    inner = list(dict.fromkeys(name for value in content.values() for name in value))
    by_row = [name.isdecimal() for name in content]
    by_column = [name.isdecimal() for name in inner]
    if all(by_row) and not any(by_column):
        return records_table(list(content.values()), where)
    if not all(by_column) or any(by_row):
        raise DataError(f"{where}: expected rows or columns, got nested objects: write {_FORMS}")
    for name, values in content.items():
        if len(values) != len(inner):
            raise DataError(f"{where}: expected {len(inner)} rows in the column {name!r}, got {len(values)}")
    return Table({name: [values[row] for row in inner] for name, values in content.items()}, where)
