"""`load_data`: labelled text from any source, as `TextData`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from offramp._core.errors import DataError, unknown_name
from offramp._core.numbers import is_number
from offramp._core.paths import user_path
from offramp._core.trace import Kind
from offramp.data import glue, hub
from offramp.data.files import READERS, named_splits, read_file, split_files
from offramp.data.labels import LabelScheme, encode, label_scheme, require_classes
from offramp.data.memory import is_splits, memory_table, read_memory
from offramp.data.packaged import PACKAGED, read_packaged
from offramp.data.rows import Columns, Rows, Source, Table, choose_columns, has_labels, pick
from offramp.data.splits import arrange
from offramp.data.tasks import GLUE, plain_name
from offramp.data.text_data import TextData, make_dataset

_LOG = logging.getLogger(__name__)

_HUB_GLUE = "nyu-mll/glue"

Asked = tuple[str | None, str | None, str | None]  # columns of text, second text and label


def load_data(
    source: Any,
    *,
    task: str | None = None,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    kind: Kind | None = None,
    calibration_size: int | None = None,
    validation_size: int | None = None,
    seed: int = 0,
) -> TextData:
    """Read labelled text and complete its splits.

    A split that the source lacks is cut from its training rows, stratified and seeded. Rows of train
    and calibration that are also in a later split are dropped; the log reports their number.

    Args:
        source: one of
            - a packaged set ("movies", …) or a GLUE task ("sst2", read from $OFFRAMP_GLUE, ./glue or the
              hub, in this order); write "./movies" for a folder of that name;
            - a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file, or a folder of them, named for splits;
            - a table in memory: a data frame, an Arrow table, a `datasets.Dataset`, a dict of columns, a list of dicts,
              or a list of pairs (text, label);
            - a mapping from split to file or table, such as a `DatasetDict`;
            - a folder in the GLUE layout, or one written by `save_to_disk`;
            - a hub name, "owner/name" or "owner/name:configuration".
        task: GLUE task of a folder whose name and columns do not show it, or of a folder of tasks.
        text: column of the text; by default a column with a usual name.
        text_pair: column of the second text, for pairs.
        label: column of the label.
        kind: "regression" or "classification"; by default regression for numbers that are not all whole.
        calibration_size, validation_size: rows of a missing split; by default 10 %, at most 1,000.
        seed: chooses these rows.

    Raises:
        DataError: the source cannot be read as requested.
    """
    for option, name in (("task", task), ("text", text), ("text_pair", text_pair), ("label", label)):
        if name is not None and not isinstance(name, str):
            raise DataError(f"expected a string as {option}, got {name!r:.80}")
    if kind not in (None, "classification", "regression"):
        raise DataError(unknown_name("kind", str(kind), ("classification", "regression")))
    for option, size in (("calibration_size", calibration_size), ("validation_size", validation_size)):
        if size is not None and (not is_number(size, whole=True) or size < 1):
            raise DataError(f"expected {option} of at least 1 row, got {size!r}: give a whole number of rows")
    content = _find(source, task, (text, text_pair, label))
    for split, size in (("calibration", calibration_size), ("validation", validation_size)):
        if size is not None and split in content.splits and "train" in content.splits:
            raise DataError(
                f"{content.name} has a {split} split of its own: leave {split}_size (--{split}-size) out"
            )
    return _assemble(content, kind, calibration_size, validation_size or content.validation_size, seed)


def _find(source: Any, task: str | None, asked: Asked) -> Source:
    if isinstance(source, TextData):
        raise DataError("expected a source to read, got data that load_data returned: use them as they are")
    if isinstance(source, Mapping) and not hub.is_data_set(source) and is_splits(source):
        named = named_splits(source)
        return _from_tables(
            "files", {split: _read_split(split, named[split]) for split in named}, asked, task
        )
    if not isinstance(source, str | PathLike):
        return _from_tables("table", read_memory(source), asked, task)
    if source == "":
        raise DataError("expected the name of a data set, a file or a folder, got an empty string")
    name = str(source)
    if isinstance(source, str) and (name in PACKAGED or plain_name(name) in GLUE):
        if any(asked) or (task and plain_name(task) != plain_name(name)):
            raise DataError(f"{name!r} has fixed columns and labels: leave task, text, text_pair, label out")
        return read_packaged(name) if name in PACKAGED else _glue_task(plain_name(name))
    path = user_path(source, "the data")
    if path.is_dir():
        return _from_folder(path, task, asked)
    if path.is_file():
        return _from_tables(path.stem, {"train": read_file(path)}, asked, task)
    if isinstance(source, str) and _is_hub_name(name):
        owner_name, _, config = name.partition(":")
        if owner_name == _HUB_GLUE:
            task = task or config
        tables = hub.read_hub(owner_name, config or (task if owner_name == _HUB_GLUE else None))
        return _from_tables(name, tables, asked, task)
    raise DataError(_not_found(path, name))


def _read_split(split: str, source: Any) -> Table:
    """The table of one split: a file, or a table in memory."""
    if not isinstance(source, str | PathLike):
        return memory_table(source, split)
    path = user_path(source, split)
    if not path.is_file():
        raise DataError(_not_found(path, str(path)))
    return read_file(path)


def _glue_task(task: str) -> Source:
    folder = glue.default_folder(task)
    if folder is not None:
        content = glue.read_glue(folder, task)
        assert content is not None
        return content
    _LOG.info("%s: neither in $OFFRAMP_GLUE nor in ./glue, so it is read from the hub", task)
    try:
        tables = hub.read_hub(_HUB_GLUE, task)
    except DataError as error:
        usual = GLUE[task].folder
        raise DataError(
            f"{task}: no folder {usual} in $OFFRAMP_GLUE or ./glue, and the hub did not help: set "
            f"OFFRAMP_GLUE to a folder that holds {usual}/train.tsv and {usual}/dev.tsv ({error})"
        ) from error
    return _from_tables(task, tables, (None, None, None), task)


def _from_folder(folder: Path, task: str | None, asked: Asked) -> Source:
    """A saved data set, a GLUE task, a folder of GLUE tasks, or files named for splits."""
    if hub.is_saved(folder):
        return _from_tables(folder.name, hub.read_saved(folder), asked, task)
    if task and (inside := glue.find_task_folder(folder, glue.task_named(task).name)):
        folder = inside
    if not any(asked) and glue.looks_like_glue(folder, task):
        content = glue.read_glue(folder, task)
        if content is not None:
            return content
    files = split_files(folder)
    if files:
        return _from_tables(
            folder.name, {split: read_file(path) for split, path in files.items()}, asked, task
        )
    names = sorted(path.name for path in folder.iterdir())
    usual = {plain_name(entry.folder) for entry in GLUE.values()}
    if tasks := [name for name in names if plain_name(name) in usual]:
        raise DataError(
            f"{folder} is a folder of tasks: choose one with task=…, or give one of {', '.join(tasks)}"
        )
    raise DataError(
        f"{folder}: expected files named train, validation or test with one of the suffixes "
        f"{', '.join(sorted(READERS))}, a GLUE folder (train.tsv, dev.tsv), or a saved data set; got "
        f"{', '.join(names[:20]) or 'nothing'}"
    )


def _from_tables(name: str, tables: Mapping[str, Table], asked: Asked, task: str | None) -> Source:
    """Choose the columns by the main table; all splits must have them. An unlabelled test split is left out."""
    tables = dict(tables)
    main = tables.get("train", tables.get("validation"))
    if main is None:
        raise DataError(f"{name}: expected rows to train on, got only {', '.join(tables)}")
    glue_task = glue.task_named(task) if task else None
    if glue_task and not any(asked) and all(column in main.columns for column in glue_task.columns):
        pair = None if glue_task.text_pair is None else str(glue_task.text_pair)
        chosen = Columns(str(glue_task.text), str(glue_task.label), pair)
    else:
        chosen = choose_columns(main, *asked)
    if "test" in tables and not has_labels(tables["test"], chosen.label):
        _LOG.info("%s: has no labels, so it is no test split", tables.pop("test").where)
    splits = {split: pick(table, chosen) for split, table in tables.items()}
    return Source(name, splits, glue_task, main.classes.get(chosen.label, ()))


def _assemble(
    source: Source, kind: Kind | None, calibration_size: int | None, validation_size: int | None, seed: int
) -> TextData:
    main = "train" if "train" in source.splits else "validation"
    if main not in source.splits:
        raise DataError(f"{source.name}: expected rows to train on, got only {', '.join(source.splits)}")
    first = source.splits[main]
    scheme = label_scheme(source, first, kind)
    tables = {split: _table(rows, scheme) for split, rows in source.splits.items()}
    require_classes(tables[main]["label"].to_numpy(), scheme, first.where)
    tables = arrange(
        tables,
        name=source.name,
        stratify=scheme.kind == "classification",
        calibration_size=calibration_size,
        validation_size=validation_size,
        seed=seed,
    )
    used = ["id", "text", *([] if first.pair is None else ["text_pair"]), "label"]
    splits = {split: make_dataset(table.select(used), scheme.names) for split, table in tables.items()}
    usual = ("accuracy",) if scheme.names else ("pearson", "spearman")
    metrics = source.task.metrics if source.task else usual
    return TextData(source.name, splits, scheme.names, scheme.kind, first.pair is not None, metrics)


def _table(rows: Rows, scheme: LabelScheme) -> Any:
    """The labelled rows as an arrow table."""
    import pyarrow as pa

    labels, labelled = encode(rows, scheme)
    if not labelled.any():
        raise DataError(f"{rows.where}: no row has a label")
    numbers = range(len(rows.text)) if rows.numbers is None else rows.numbers
    columns = {"id": pa.array(numbers, pa.int64()), "text": pa.array(rows.text, pa.string())}
    for name, values in (("text_pair", rows.pair), ("group", rows.group)):
        if values is not None:
            columns[name] = pa.array(values, pa.string())
    return pa.table({**columns, "label": pa.array(labels)}).filter(pa.array(labelled))


def _is_hub_name(name: str) -> bool:
    """Whether a name is owner/name and not a mistyped path."""
    path = Path(name)
    looks_local = name.startswith((".", "/", "~")) or path.suffix.lower() in READERS or path.parent.is_dir()
    return name.count("/") == 1 and not looks_local


def _not_found(path: Path, source: str) -> str:
    """The message for a missing source, with files of a similar name, or names that `load_data` accepts."""
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    if near := difflib.get_close_matches(path.name, beside, n=3):
        suggestions = " or ".join(str(path.parent / name) for name in near)
        return f"{source} does not exist. Did you mean {suggestions}?"
    if "/" in source or path.suffix.lower() in READERS:
        parent = "" if path.parent.is_dir() else f" (there is no folder {path.parent})"
        return (
            f"{source} does not exist{parent}; expected a file, a folder, or a name like 'movies' or 'sst2'"
        )
    message = unknown_name("data", source, [*PACKAGED, *GLUE])
    return f"{message}; or give a file, a folder or a hub name owner/name"
