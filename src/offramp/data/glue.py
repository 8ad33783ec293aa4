"""Folders in the standard GLUE layout: tab-separated, no quoting, a header in every task except CoLA."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from offramp._core.errors import DataError, unknown_name
from offramp._core.paths import user_path
from offramp.data.decoding import tab_separated
from offramp.data.rows import Rows, Source, Table, clean, require_column, require_rows
from offramp.data.tasks import GLUE, Task, plain_name

_LOG = logging.getLogger(__name__)

_SPLITS = {
    "train.tsv": "train",
    "dev.tsv": "validation",
    "dev_matched.tsv": "validation",
    "dev_mismatched.tsv": "validation_mismatched",
    "msr_paraphrase_test.txt": "test",
    "test.tsv": "test",
}
_BAD_SHARE = 0.01  # QQP has a few broken lines; a larger share means another layout


def find_task_folder(root: Path, task: str) -> Path | None:
    """The folder of a task inside a folder of tasks, under its usual name in any spelling."""
    names = {plain_name(GLUE[task].folder), plain_name(task)}
    if not root.is_dir():
        return None
    return next((p for p in sorted(root.iterdir()) if p.is_dir() and plain_name(p.name) in names), None)


def default_folder(task: str) -> Path | None:
    """The default folder of a task: in $OFFRAMP_GLUE, else in ./glue; None if neither has it."""
    chosen = os.environ.get("OFFRAMP_GLUE")
    roots = [user_path(chosen, "$OFFRAMP_GLUE")] if chosen else []
    folders = (find_task_folder(root, task) for root in [*roots, Path("glue")])
    return next((folder for folder in folders if folder is not None), None)


def task_named(name: str) -> Task:
    """The GLUE task of a name in any spelling, or a `DataError` with the nearest name."""
    if plain_name(name) not in GLUE:
        raise DataError(unknown_name("GLUE task", name, GLUE))
    return GLUE[plain_name(name)]


def looks_like_glue(folder: Path, task: str | None = None) -> bool:
    """Whether the files have GLUE's names: a dev file, or a train file of a known task."""
    files = {path.name for path in folder.iterdir()}
    named = task is not None or _from_folder(folder) is not None
    return bool(files & {"dev.tsv", "dev_matched.tsv"}) or (named and "train.tsv" in files)


def read_glue(folder: Path, task: str | None = None) -> Source | None:
    """Read a task's folder; None if neither its name nor its columns are those of a GLUE task.

    Args:
        folder: holds train.tsv or dev.tsv or both (for MNLI dev_matched.tsv and dev_mismatched.tsv).
        task: its name; by default taken from the folder's name, else from the columns and labels.

    Raises:
        DataError: no file, or a file that is empty, not UTF-8, or has other columns than the task's.
    """
    files = {name: folder / name for name in _SPLITS if (folder / name).is_file()}
    labelled = next((path for name, path in files.items() if _SPLITS[name] != "test"), None)
    if labelled is None:
        inside = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise DataError(f"{folder}: expected train.tsv or dev.tsv, got {inside}")
    chosen = task_named(task) if task else _from_folder(folder) or _from_content(labelled)
    if chosen is None:
        return None
    splits: dict[str, Rows] = {}
    for name, path in files.items():
        rows = _read_split(path, chosen, optional=name == "test.tsv")
        if rows is not None:
            splits.setdefault(_SPLITS[name], rows)
    return Source(chosen.name, splits, chosen)


def _from_folder(folder: Path) -> Task | None:
    name = plain_name(folder.resolve().name)
    return next((task for task in GLUE.values() if name in (plain_name(task.folder), task.name)), None)


def _from_content(path: Path) -> Task | None:
    """The task whose columns and label values the file has; of several, the task with most columns."""
    lines = tab_separated(path)[:1000]
    candidates = []
    for task in GLUE.values():
        header, rows = _header(lines, task)
        if not all(column in header for column in task.columns):
            continue
        at = header.index(task.label)
        values = {row[at] for row in rows if len(row) > at}
        if not task.labels or values <= set(task.values or task.labels):
            candidates.append(task)
    if not candidates:
        return None
    best = max(candidates, key=lambda task: len(task.columns))
    _LOG.info("%s: read as GLUE task %s, by its columns", path, best.name)
    return best


def _read_split(path: Path, task: Task, optional: bool) -> Rows | None:
    """One file; None for an unlabelled test file."""
    header, rows = _header(tab_separated(path), task)
    if optional and task.label not in header:
        _LOG.info("%s: has no labels, so it is no test split", path)
        return None
    table = Table({str(name): rows for name in header}, str(path))
    for column in task.columns:
        require_column(table, str(column))
    require_rows(table)
    at = [header.index(column) for column in task.columns]
    numbers = [i for i, row in enumerate(rows) if len(row) > max(at)]
    if bad := len(rows) - len(numbers):
        if bad > max(1, _BAD_SHARE * len(rows)):
            raise DataError(f"{path}: {bad} of {len(rows)} lines have fewer columns than {task.name} needs")
        _LOG.warning("%s: %d lines with too few columns skipped", path, bad)
    text, *pair, label = ([rows[i][column] for i in numbers] for column in at)
    cleaned = [clean(texts, str(path)) for texts in (text, *pair)]
    return Rows(cleaned[0], label, str(path), cleaned[1] if pair else None, numbers=numbers)


def _header(lines: list[list[str]], task: Task) -> tuple[list[str | int], list[list[str]]]:
    """Column names and rows. CoLA has four nameless columns; its unlabelled test file has a header."""
    if isinstance(task.text, int) and lines[0][0] != "index":
        width = len(lines[0])
        return list(range(width)), lines
    return [name.strip() for name in lines[0]], lines[1:]
