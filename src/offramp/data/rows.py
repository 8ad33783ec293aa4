"""Raw rows from a reader: their columns, the choice of columns, and text that arrow can hold."""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offramp._core.errors import DataError
from offramp._core.text import clean_text
from offramp.data.tasks import Task

_LOG = logging.getLogger(__name__)

_PAIRS = (
    ("text", "text_pair"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("evidence", "claim"),
)
_TEXTS = "text sentence content document review comment message tweet question body"
_LABELS = "label labels target class category gold_label is_duplicate sentiment score y"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Table:
    """The content of a file.

    Attributes:
        columns: column name to values, all of the same length.
        classes: column name to class names, for columns of class indices with known names.
        where: its name in messages.
        typed: whether the source has types, so that digits in a text column are text.
    """

    columns: dict[str, list[Any]]
    where: str
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    typed: bool = True

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


@dataclass(frozen=True)
class Rows:
    """One split before its labels become classes: texts, second texts of pairs, labels as in the source."""

    text: list[str]
    label: list[Any]
    where: str
    pair: list[str] | None = None
    group: list[str] | None = None
    numbers: Sequence[int] | None = None  # row numbers in the source, if rows are left out


@dataclass(frozen=True)
class Source:
    """The content that a reader returns. `classes` may name classes that no row has."""

    name: str
    splits: dict[str, Rows]
    task: Task | None = None
    classes: tuple[str, ...] = ()
    validation_size: int | None = None


@dataclass(frozen=True)
class Columns:
    """The columns that are used."""

    text: str
    label: str
    pair: str | None = None


def choose_columns(table: Table, text: str | None, pair: str | None, label: str | None) -> Columns:
    """The requested columns, or those with usual names.

    Raises:
        DataError: a column is missing, or none has a usual name; the message lists all columns.
    """
    for wanted in (text, pair, label):
        if wanted is not None:
            require_column(table, wanted)
    names = {name.lower().strip(): name for name in reversed(table.columns)}
    if text is None or label is None:
        _require_one_spelling(table)
    if text is None and pair is None:
        for first, second in _PAIRS:
            if first in names and second in names and names[second] != label:
                text, pair = names[first], names[second]
                break
    text = text or _usual(names, _TEXTS, "text", table, {pair, label})
    label = label or _usual(names, _LABELS, "label", table, {text, pair})
    if len({text, pair, label} - {None}) < (2 if pair is None else 3):
        chosen = f"text={text!r}, text_pair={pair!r}, label={label!r}"
        raise DataError(f"{table.where}: expected different columns, got {chosen}; {_listed(table)}")
    return Columns(text, label, pair)


def choose_texts(
    table: Table, text: str | None, pair: str | None, paired: bool | None
) -> tuple[str, str | None]:
    """The requested columns of texts and of second texts, or those with usual names.

    Args:
        table: its columns may be empty.
        text, pair: requested names.
        paired: whether the model was trained on pairs; None if unknown. Only then are second texts looked for.

    Raises:
        DataError: a column is missing, or none has a usual name; the message lists all columns.
    """
    for wanted in (text, pair):
        if wanted is not None:
            require_column(table, wanted)
    names = {name.lower().strip(): name for name in reversed(table.columns)}
    for first, second in _PAIRS if text is None and pair is None and paired is not False else ():
        if first in names and second in names:
            return names[first], names[second]
    return text or _usual(names, _TEXTS, "text", table, {pair}), pair


def is_usual_text(name: Any) -> bool:
    """Whether a value is a usual name for a column of texts."""
    return isinstance(name, str) and name.strip().lower() in _TEXTS.split()


def is_usual_label(name: Any) -> bool:
    """Whether a value is a usual name for a column of labels."""
    return isinstance(name, str) and name.strip().lower() in _LABELS.split()


def require_column(table: Table, name: str) -> None:
    """Raise `DataError` if the table lacks a column; the message gives the nearest name."""
    if name in table.columns:
        return
    near = difflib.get_close_matches(name.lower(), [column.lower() for column in table.columns], n=1)
    actual = next((column for column in table.columns if near and column.lower() == near[0]), None)
    hint = f" Did you mean {actual!r}?" if actual else ""
    raise DataError(f"{table.where}: no column {name!r}.{hint} {_listed(table)}")


def has_labels(table: Table, label: str) -> bool:
    """Whether any row has a label."""
    names = table.classes.get(label)
    return any(not is_missing(v) and not (names and v == -1) for v in table.columns.get(label, []))


def pick(table: Table, columns: Columns) -> Rows:
    """The rows of a table: text cleaned, class indices turned into names."""
    require_rows(table)
    for name in (columns.text, columns.pair, columns.label):
        if name is not None:
            require_column(table, name)
    label, where = table.columns[columns.label], f"{table.where}, column {columns.label!r}"
    if strange := {type(value) for value in label} - {str, int, float, bool, type(None)}:
        raise DataError(f"{where}: expected strings or numbers as labels, got {strange.pop().__name__}")
    if infinite := [value for value in label if isinstance(value, float) and math.isinf(value)]:
        raise DataError(
            f"{where}: expected finite numbers as labels, got {infinite[0]} in {len(infinite)} rows"
        )
    if columns.label in table.classes:
        label = _named(label, table.classes[columns.label], where)
    pair = None if columns.pair is None else _texts(table, columns.pair)
    return Rows(_texts(table, columns.text), label, table.where, pair)


def require_distinct(where: str, names: Sequence[str]) -> None:
    """Raise `DataError` if a column occurs twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        listed = ", ".join(map(repr, names))
        raise DataError(f"{where}: the column {twice[0]!r} occurs twice; rename one. Columns: {listed}")


def require_rows(table: Table) -> None:
    """Raise `DataError` for a table without rows."""
    if len(table) == 0:
        raise DataError(
            f"{table.where} has no rows below its header; give a file with at least a few examples"
        )


def is_missing(value: Any) -> bool:
    """Whether a label is missing: None, NaN (also as a word) or blank."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or value != value


def clean(values: list[str], where: str) -> list[str]:
    """The texts with NUL and lone surrogates replaced by U+FFFD; a warning gives their number."""
    cleaned = [clean_text(value) for value in values]
    if changed := sum(before != after for before, after in zip(values, cleaned, strict=True)):
        _LOG.warning("%s: NUL or lone surrogates replaced by U+FFFD in %d texts", where, changed)
    return cleaned


def _texts(table: Table, column: str) -> list[str]:
    values = table.columns[column]
    where = f"{table.where}, column {column!r}"
    kinds = Counter(type(value).__name__ for value in values if value is not None)
    if set(kinds) - {"str"}:
        kind, count = next((k, n) for k, n in kinds.most_common() if k != "str")
        raise DataError(f"{where}: expected text, got {kind} in {count} rows; {_listed(table)}")
    if missing := sum(value is None for value in values):
        _LOG.warning("%s: %d missing texts read as empty", where, missing)
        values = ["" if value is None else value for value in values]
    if not table.typed and all(NUMBER.fullmatch(value.strip()) for value in values):
        raise DataError(f"{where}: expected text, got numbers only; {_listed(table)}")
    return clean(values, where)


def _named(values: list[Any], names: tuple[str, ...], where: str) -> list[str | None]:
    """Class indices as names; -1 means no label."""
    unlabelled: set[Any] = {value for value in set(values) if is_missing(value)} | {-1}
    for value in set(values) - unlabelled:
        if value not in range(len(names)):
            raise DataError(f"{where}: label {value!r} is outside the range 0 … {len(names) - 1} of {names}")
    return [None if value in unlabelled else names[value] for value in values]


def _require_one_spelling(table: Table) -> None:
    """Raise `DataError` if a usual name has several columns, which differ in case or spaces."""
    spellings = Counter(name.lower().strip() for name in table.columns)
    for name, count in spellings.items():
        if count > 1 and (is_usual_text(name) or is_usual_label(name)):
            several = ", ".join(repr(column) for column in table.columns if column.lower().strip() == name)
            raise DataError(f"{table.where}: the columns {several} differ in case or spaces only: rename one")


def _usual(names: Mapping[str, str], usual: str, role: str, table: Table, taken: set[str | None]) -> str:
    for name in usual.split():
        if name in names and names[name] not in taken:
            return names[name]
    header = (
        ""
        if table.typed
        else ". If these are values or a comment, begin the file with a line of column names"
    )
    raise DataError(
        f"{table.where}: no column has a usual name for the {role} ({', '.join(usual.split())}); "
        f"choose one with {role}=… {_listed(table)}{header}"
    )


def _listed(table: Table) -> str:
    return f"Columns: {', '.join(map(repr, table.columns))}"
