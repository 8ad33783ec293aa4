"""The rows of whatever a program has in memory: lists, arrays, data frames, Arrow tables, data sets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np

from offramp._core.errors import DataError


@runtime_checkable
class _ArrowStream(Protocol):
    """A table or a column of any library that shares Arrow's memory: pyarrow, polars, duckdb and others."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@runtime_checkable
class _ArrowArray(Protocol):
    """A batch or an array of any such library."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> object: ...


def read_rows(source: Any) -> Iterable[Any]:
    """The rows of a source in order, read as they are needed: its items, or dicts for a table.

    Args:
        source: a list or another iterable; an array, or a column of a data frame; a data frame (pandas, polars), an
            Arrow table or batch, a `datasets.Dataset`, or a dict of columns.

    Raises:
        DataError: one text, one row, several splits, a set (it has no order), what has no rows, or column names that
            repeat or are not strings.
    """
    if isinstance(source, str | bytes):
        kind = "string" if isinstance(source, str) else "bytes object"
        raise DataError(f"expected a list of texts, got one {kind}: put it in a list")
    if isinstance(source, list):  # the usual case first: the checks below take longer than a tokenizer
        return _listed(source)
    if isinstance(source, Mapping):
        return _column_rows(source)
    if _is_from("datasets", source, "Dataset", "IterableDataset"):
        rows: Iterable[Any] = source.with_format(None)
        return rows
    if _is_from("pandas", source, "DataFrame", "Series"):
        return _pandas_rows(source)
    if isinstance(source, np.ndarray):
        names = source.dtype.names
        return _column_rows({name: source[name] for name in names}) if names else read_rows(source.tolist())
    if isinstance(source, _ArrowStream | _ArrowArray):
        return _arrow_rows(source)
    return _listed(source)


def is_table(source: Any) -> bool:
    """Whether a source has named columns."""
    if isinstance(source, _ArrowStream) and not _is_from("pandas", source, "DataFrame", "Series"):
        import pyarrow as pa

        return pa.types.is_struct(pa.chunked_array(source).type)
    return (
        isinstance(source, Mapping)
        or _is_from("pandas", source, "DataFrame")
        or _is_from("datasets", source, "Dataset", "IterableDataset")
    )


def several_splits(source: Mapping[Any, Any]) -> DataError:
    """The error where one split is expected."""
    names = ", ".join(map(str, source))
    return DataError(f"expected one split, got data with the splits {names}: pass one, data['validation']")


def brief(value: Any) -> str:
    """A value in one line of a message."""
    return " ".join(repr(value).split())[:80]


def _is_from(library: str, source: Any, *kinds: str) -> bool:
    """Whether a source is of a library's class; who has such an object has imported the library."""
    module = sys.modules.get(library)
    return module is not None and isinstance(source, tuple(getattr(module, kind, ()) for kind in kinds))


def _listed(source: Any) -> Iterator[Any]:
    """The items of an iterable; named tuples as dicts, numpy's values as Python's."""
    if isinstance(source, set | frozenset):
        raise DataError("expected a list of texts, got a set, which has no order: pass sorted(texts)")
    if not isinstance(source, Iterable):
        raise DataError(
            f"expected a list of texts, got {type(source).__name__}: {brief(source)}: pass a list or a table"
        )
    return map(_row, source)


def _row(item: Any) -> Any:
    if isinstance(item, np.ndarray | np.generic):
        return item.tolist()
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return dict(zip(item._fields, item, strict=True))
    return item


def _column_rows(columns: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    lists: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if is_table(values):
            raise several_splits(columns)
        if not isinstance(name, str):
            raise DataError(f"expected strings as column names, got {brief(name)}: name the columns")
        if isinstance(values, str | bytes | PurePath) or not isinstance(values, Iterable):
            raise DataError(
                f"expected a list of values under {name!r}, got {type(values).__name__}: {brief(values)}: put a single "
                "row in a list"
            )
        lists[name] = list(read_rows(values))
    sizes = {name: len(values) for name, values in lists.items()}
    if len(set(sizes.values())) != 1:
        raise DataError(f"expected columns of one length, got {sizes or 'no columns'}")
    return (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))


def _pandas_rows(source: Any) -> Iterator[Any]:
    """Rows of a frame, values of a series; the index plays no role. Missing values are None."""
    if source.ndim == 1:
        if "text" in source.index:
            raise DataError("expected a list of texts, got one row of a data frame: pass frame.iloc[[i]]")
        values = zip(source.astype(object), source.isna(), strict=True)
        return (None if missing else _row(value) for value, missing in values)
    if not source.columns.is_unique:
        raise DataError(f"expected different columns, got {brief(list(source.columns))}: rename one")
    return _column_rows({name: list(_pandas_rows(source[name])) for name in source.columns})


def _arrow_rows(source: Any) -> Iterator[Any]:
    import pyarrow as pa

    try:
        array = pa.chunked_array(source) if isinstance(source, _ArrowStream) else pa.array(source)
        return iter(array.to_pylist())
    except (pa.ArrowException, ValueError) as error:  # columns that repeat, bytes that are not UTF-8
        raise DataError(f"{type(source).__name__} cannot be read as a table: {brief(str(error))}") from error
