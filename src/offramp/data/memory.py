"""Labelled rows that a program has in memory: data frames, Arrow tables, data sets, lists of dicts or of pairs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from offramp._core.errors import DataError
from offramp._core.tables import brief, is_table, read_rows
from offramp.data import hub
from offramp.data.json_files import records_table
from offramp.data.rows import Table, is_usual_label, is_usual_text

_WANTED = "pass a data frame, a data set, dicts, or pairs (text, label)"


def is_splits(source: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds a path or a table for each split, and not the values of each column."""
    if any(map(is_usual_text, source)):
        return False
    return any(
        isinstance(value, str | PurePath) or is_table(value) or _has_rows(value) for value in source.values()
    )


def read_memory(source: Any) -> dict[str, Table]:
    """Split name to table, of one table or of a data set with its own splits; one table is "train".

    Raises:
        DataError: a source without labelled rows; see `memory_table`.
    """
    if hub.is_data_set(source):
        return hub.tables(source, "the data set")
    return {"train": memory_table(source, "the table")}


def memory_table(source: Any, where: str) -> Table:
    """The columns of one table; a list of pairs has the columns `text` and `label`.

    Args:
        source: what `read_rows` reads: dicts, pairs, or rows of a table.
        where: its name in messages.

    Raises:
        DataError: no rows, rows of another kind, or pairs that are not (text, label).
    """
    if hub.is_data_set(source):
        return hub.tables(source, where)["train"]
    try:
        rows = list(read_rows(source))
    except DataError as error:
        if is_table(source):
            raise DataError(f"{where}: {error}") from error
        raise DataError(
            f"{where}: expected a file, a name or labelled rows, got {type(source).__name__}: {_WANTED}"
        ) from error
    if not rows:
        raise DataError(f"{where} has no rows: {_WANTED}")
    if isinstance(rows[0], Mapping):
        table = records_table(rows, where)
        for name in table.columns:
            if not isinstance(name, str):
                raise DataError(f"{where}: expected strings as column names, got {name!r}: name the columns")
    else:
        table = _pairs_table(rows, where)
    return Table({name: list(map(_plain, values)) for name, values in table.columns.items()}, where)


def _pairs_table(rows: Sequence[Any], where: str) -> Table:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, tuple | list) or len(row) != 2:
            raise DataError(
                f"{where}, row {number}: expected a text and a label, got {brief(row)}: {_WANTED}"
            )
    texts, labels = map(list, zip(*rows, strict=True))
    if is_usual_text(texts[0]) and is_usual_label(labels[0]):
        raise DataError(
            f"{where}, row 1: expected a text and a label, got column names: leave the header out"
        )
    if len(set(map(str, labels))) > len(set(map(str, texts))):
        raise DataError(
            f"{where}: expected pairs (text, label), got more different labels than texts: the text comes first"
        )
    return Table({"text": texts, "label": labels}, where)


def _plain(value: Any) -> Any:
    """Numpy's values as Python's, and pandas' missing value as None."""
    if isinstance(value, np.generic):
        return value.item()
    pandas = sys.modules.get("pandas")
    return None if pandas is not None and value is pandas.NA else value


def _has_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping | tuple | list)
