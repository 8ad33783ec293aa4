"""The files of many runs below a folder: loose, as the commands wrote them, or packed into a few tables.

A packed folder holds `records.jsonl` (a record per line, with its path), `rows.parquet` (rows of every Parquet file),
`traces.parquet` (one row per example of every trace) and `gradients.parquet` (inner products of gradients). Readers
see no difference: they ask for a file by the path that it has, or had, below the folder.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core import progress as display
from offramp._core.errors import DataError
from offramp._core.files import atomic_write, check_writable
from offramp._core.paths import UserPath, user_path
from offramp._core.records import check_record, read_record, read_records, write_text
from offramp._core.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

RECORDS, ROWS, TRACES, GRADIENTS = "records.jsonl", "rows.parquet", "traces.parquet", "gradients.parquet"
GRADIENT_FILE = "products.npz"
INDEX = b"offramp.files"  # in the metadata of a packed table: the rows of each file

Gradients = dict[int, NDArray[np.float64]]  # by training step: (batches, layers, exits, exits)


class RunFiles:
    """The files that the runs below a folder have written.

    A file in the folder itself precedes a packed one of the same path.

    Args:
        root: a folder of runs, of packed runs, or of both, at any depth.
    """

    def __init__(self, root: UserPath) -> None:
        self.root = user_path(root)

    @cached_property
    def _packs(self) -> list[_Pack]:
        folders = [path.parent for path in sorted(self.root.rglob(RECORDS))] if self.root.is_dir() else []
        return [_Pack(folder, folder.relative_to(self.root).as_posix()) for folder in folders]

    def records(self, pattern: str = "*.json") -> list[dict[str, Any]]:
        """Every record, in order of the paths, each with its `path`; errors and warnings are those of `read_records`.

        Args:
            pattern: of the file names.
        """
        loose = read_records(self.root, pattern)
        paths = {record["path"] for record in loose}
        packed = [record for pack in self._packs for record in pack.records if record["path"] not in paths]
        matching = [record for record in packed if fnmatch(PurePosixPath(record["path"]).name, pattern)]
        return sorted([*loose, *matching], key=lambda record: PurePosixPath(record["path"]))

    def record(self, path: str | PurePosixPath) -> dict[str, Any] | None:
        """The record of that path, or None; `DataError` for an unreadable record."""
        if (self.root / path).is_file():
            return read_record(self.root / path)
        return next((r for pack in self._packs for r in pack.records if r["path"] == str(path)), None)

    def table(self, path: str | PurePosixPath) -> pa.Table:
        """The rows of a Parquet file.

        Raises:
            DataError: no such file, or one that cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if (self.root / path).is_file():
            try:
                return pq.read_table(self.root / path)
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{self.root / path} cannot be read ({error}): run its command again"
                ) from error
        return self._packed(ROWS, path)

    def trace(self, path: str | PurePosixPath) -> Trace:
        """A trace; `DataError` if it is missing."""
        if (self.root / path).is_file():
            return Trace.load(self.root / path)
        table = self._packed(TRACES, path)
        header = json.loads(table.schema.metadata[b"header"])
        arrays = {name: _as_array(table[name], shape) for name, shape in header.pop("shapes").items()}
        return Trace.from_parts(header, arrays)

    def gradients(self, path: str | PurePosixPath) -> Gradients:
        """Inner products of gradients by training step; empty if they were not measured."""
        if (self.root / path).is_file() or not any(p.holds(GRADIENTS, str(path)) for p in self._packs):
            return read_gradients(self.root / path)
        table = self._packed(GRADIENTS, path)
        shape = json.loads(table.schema.metadata[b"header"])
        steps = table["step"].to_pylist()
        return {step: _as_array(table["products"].slice(i, 1), shape)[0] for i, step in enumerate(steps)}

    def _packed(self, name: str, path: str | PurePosixPath) -> pa.Table:
        for pack in self._packs:
            if pack.holds(name, str(path)):
                return pack.table(name, str(path))
        raise DataError(
            f"{self.root / path} is missing: delete the record beside it, and run its command again"
        )


@dataclass(frozen=True)
class _Pack:
    """One packed folder; paths are relative to the requested folder, which is `prefix` above."""

    folder: Path
    prefix: str

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        path = self.folder / RECORDS
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            stored = [(line["path"], check_record(line, path)) for line in lines]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}): pack its runs again") from error
        return [{**record, "path": (PurePosixPath(self.prefix) / name).as_posix()} for name, record in stored]

    @cached_property
    def _tables(self) -> dict[str, tuple[pa.Table, dict[str, Any]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = {}
        for path in (self.folder / name for name in (ROWS, TRACES, GRADIENTS)):
            if path.exists():
                try:
                    table = pq.read_table(path)
                    tables[path.name] = table, json.loads(table.schema.metadata[INDEX])
                except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
                    raise DataError(f"{path} cannot be read ({error}): pack its runs again") from error
        return tables

    def _own(self, path: str) -> str:
        below = PurePosixPath(path)
        return below.relative_to(self.prefix).as_posix() if below.is_relative_to(self.prefix) else ""

    def holds(self, name: str, path: str) -> bool:
        return name in self._tables and self._own(path) in self._tables[name][1]["files"]

    def table(self, name: str, path: str) -> pa.Table:
        import pyarrow as pa

        table, index = self._tables[name]
        start, rows, schema = index["files"][self._own(path)]
        stored = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(index["schemas"][schema])))
        return table.slice(start, rows).select(stored.names).cast(stored)


def pack(root: UserPath, output: UserPath, *, progress: bool = False) -> dict[str, int]:
    """Pack the runs below a folder into a few files that every report reads as it reads the runs.

    Args:
        root: folder of the runs; nothing in it is changed.
        output: folder to write to; files packed there before are replaced.
        progress: show progress bars.

    Returns:
        The number of files in each packed file.

    Raises:
        DataError: no records, or a file that cannot be read.
    """
    files, output = RunFiles(root), user_path(output)
    check_writable(output)
    records = files.records()
    if not records:
        raise DataError(f"no run records below {root}: give a folder that an offramp command wrote to")
    write_text(output / RECORDS, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
    folders = sorted({PurePosixPath(record["path"]).parent for record in records})
    tables = [
        PurePosixPath(record["path"]).parent / content
        for record in records
        for content in record["tables"].values()
        if isinstance(content, str)
    ]
    traces = [
        PurePosixPath(record["path"]).parent / record["metrics"]["trace"]
        for record in records
        if isinstance(record["metrics"].get("trace"), str)
    ]
    gradients = [folder / GRADIENT_FILE for folder in folders if files.gradients(folder / GRADIENT_FILE)]
    written = {
        name: _write(
            output / name, display.track([*dict.fromkeys(paths)], f"pack {name}", show=progress), read
        )
        for name, paths, read in (
            (ROWS, tables, files.table),
            (TRACES, traces, lambda path: _trace_rows(files.trace(path))),
            (GRADIENTS, gradients, lambda path: _gradient_rows(files.gradients(path))),
        )
    }
    return {RECORDS: len(records), **written}


def _write(path: Path, names: Iterable[PurePosixPath], read: Callable[[PurePosixPath], pa.Table]) -> int:
    """Write tables one below the other, with the rows of each in the metadata; write no file for no tables."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = {name.as_posix(): read(name) for name in names}
    if not tables:
        return 0
    schemas: dict[str, int] = {}
    index, start = {}, 0
    for name, table in tables.items():
        schema = base64.b64encode(table.schema.serialize().to_pybytes()).decode()
        index[name] = start, len(table), schemas.setdefault(schema, len(schemas))
        start += len(table)
    named = [
        table.replace_schema_metadata(None).add_column(0, "file", pa.array([name] * len(table), pa.string()))
        for name, table in tables.items()
    ]
    together = pa.concat_tables(named, promote_options="permissive")
    described = together.replace_schema_metadata(
        {INDEX: json.dumps({"files": index, "schemas": list(schemas)})}
    )
    with atomic_write(path) as draft:
        pq.write_table(described, draft, compression="zstd", compression_level=19)
    return len(tables)


def _trace_rows(trace: Trace) -> pa.Table:
    """A trace as a table: one row per example, arrays of an example as lists."""
    import pyarrow as pa

    header, arrays = trace.parts()
    columns = {name: _as_column(values) for name, values in arrays.items()}
    header["shapes"] = {name: values.shape[1:] for name, values in arrays.items()}
    return pa.table(columns).replace_schema_metadata({"header": json.dumps(header)})


def _gradient_rows(gradients: Mapping[int, NDArray[np.float64]]) -> pa.Table:
    import pyarrow as pa

    products = np.stack(list(gradients.values()))
    columns = {"step": pa.array(list(gradients), pa.int64()), "products": _as_column(products)}
    return pa.table(columns).replace_schema_metadata({"header": json.dumps(products.shape[1:])})


def _as_column(values: NDArray[Any]) -> pa.Array:
    """An array `(rows, …)` as a column: of numbers, or of lists of one length."""
    import pyarrow as pa

    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values[0].size)


def _as_array(column: pa.ChunkedArray, shape: Iterable[int]) -> NDArray[Any]:
    """The column as the array `(rows, *shape)` that it was made of."""
    import pyarrow as pa

    values = column.combine_chunks()
    if isinstance(values.type, pa.FixedSizeListType):
        values = values.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), *shape)


def write_gradients(path: Path, gradients: Gradients) -> None:
    """Write the inner products of each training step to a file of their own."""
    arrays: dict[str, Any] = {str(step): gradients[step] for step in sorted(gradients)}
    with atomic_write(path) as draft, open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_gradients(path: Path) -> Gradients:
    """Read what `write_gradients` wrote; nothing without a file, `DataError` for a damaged one."""
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {int(step): stored[step] for step in stored.files}
    except Exception as error:  # zip, zlib and numpy each have their own errors
        raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}): delete it") from error
