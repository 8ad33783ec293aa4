"""The few Arrow calls that evaluation and reports need. Arrow is imported on use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")  # how a cell begins that a spreadsheet would compute
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")

Columns = Mapping[str, Sequence[Any] | NDArray[Any]]


def table(columns: Columns) -> pa.Table:
    """An Arrow table of named columns. None becomes a null, NaN stays NaN."""
    import pyarrow as pa

    return pa.table({name: pa.array(values) for name, values in columns.items()})


def as_table(rows: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
    """An Arrow table, whether rows come as one already or as a list of dicts."""
    import pyarrow as pa

    return rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])


def from_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """An Arrow table of rows of values; without rows, of empty columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return table(dict(zip(names, columns, strict=True)))


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column as float64; nulls become NaN."""
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)


def stack(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of the same columns on top of each other; integers and floats meet as floats."""
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="permissive")


def require_columns(table: pa.Table, names: Sequence[str], what: str) -> None:
    """Raise `DataError` where a table lacks columns."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{what} needs the columns {', '.join(missing)}, but the table has only "
            f"{', '.join(table.column_names) or 'none'}: write the table again with this version"
        )


def rows_where(table: pa.Table, name: str, value: object) -> pa.Table:
    """The rows whose column `name` has a value."""
    import pyarrow.compute as pc

    return table.filter(pc.equal(table[name], value))


def in_front(table: pa.Table, constants: Mapping[str, object]) -> pa.Table:
    """The table with constant columns in front of its own."""
    import pyarrow as pa

    for position, (name, value) in enumerate(constants.items()):
        table = table.add_column(position, name, pa.array([value] * table.num_rows))
    return table


def with_column(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    """The table with one more column behind its own."""
    import pyarrow as pa

    return table.append_column(name, pa.array(values))


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """The table as a data frame; `MissingExtraError` without pandas."""
    try:
        return table.to_pandas()
    except ModuleNotFoundError as error:
        raise MissingExtraError("pandas", "torch") from error


def to_csv(table: pa.Table) -> bytes:
    """The table as CSV for any reader: text that a spreadsheet would take for a formula gets an apostrophe in front."""
    import pyarrow as pa
    from pyarrow import csv

    for position, (field, column) in enumerate(zip(table.schema, table.columns, strict=True)):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            cells = [None if cell is None else _no_formula(cell) for cell in column.to_pylist()]
            table = table.set_column(position, field, pa.array(cells, field.type))
    table = table.rename_columns([_no_formula(name) for name in table.column_names])
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink)
    return bytes(sink.getvalue())


def _no_formula(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text
