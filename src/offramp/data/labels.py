"""Turn the labels of a source into class indices, or into numbers for regression."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, unknown_name
from offramp._core.trace import Kind
from offramp.data.rows import NUMBER, Rows, Source, is_missing

_LOG = logging.getLogger(__name__)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_INTEGER = re.compile(r"[+-]?\d+")
LARGEST = float(np.finfo(np.float32).max)  # models compute in single precision


@dataclass(frozen=True)
class LabelScheme:
    """How to read labels: canonical label to class, or the lowest and highest value of a regression."""

    kind: Kind
    names: tuple[str, ...] = ()
    index: dict[str, int] | None = None
    bounds: tuple[float, float] | None = None


def canonical(value: Any) -> str:
    """One spelling for a label of any type: 1, 1.0 and "1" are the same class."""
    text = str(value).strip()
    return text.split(".")[0] if re.fullmatch(r"[+-]?\d+\.0+", text) else text


def label_scheme(source: Source, train: Rows, kind: Kind | None) -> LabelScheme:
    """The scheme of the task or the source, or one guessed from the training labels.

    Raises:
        DataError: no label, nearly as many classes as rows, or a `kind` that does not match.
    """
    if task := source.task:
        if kind not in (None, task.kind):
            raise DataError(f"{task.name} is a {task.kind} task, but kind={kind!r} was given: leave kind out")
        index = {name: i for names in (task.labels, task.values) for i, name in enumerate(names)}
        return LabelScheme(task.kind, task.labels, index, task.bounds)
    if source.classes and kind != "regression":
        return LabelScheme("classification", source.classes, _index(source.classes))
    names_seen = {canonical(value) for value in set(train.label) if not is_missing(value)}
    if not names_seen:
        raise DataError(f"{train.where}: no row has a label")
    if kind is None:
        _require_clear_kind(names_seen, train.where)
    numbers = all(NUMBER.fullmatch(name) for name in names_seen)
    if kind == "regression" or (kind is None and numbers and not all(map(_INTEGER.fullmatch, names_seen))):
        return LabelScheme("regression")
    if len(names_seen) > 100 and len(names_seen) > len(train.label) / 2:
        raise DataError(
            f"{train.where}: {len(names_seen)} different labels in {len(train.label)} rows are not classes: "
            "choose another label column, or kind='regression' for numbers"
        )
    _require_one_spelling(names_seen, train.where)
    names = tuple(sorted(names_seen, key=_class_order))
    return LabelScheme("classification", names, _index(names))


def _require_clear_kind(names: Iterable[str], where: str) -> None:
    """Raise `DataError` for labels that may be classes or the numbers of a regression."""
    words = [name for name in names if NUMBER.fullmatch(name) is None]
    decimals = [name for name in names if NUMBER.fullmatch(name) and not _INTEGER.fullmatch(name)]
    if words and all(map(_DECIMAL_COMMA.fullmatch, words)):
        raise DataError(
            f"{where}: labels such as {words[0]!r} have a decimal comma: write a point, or give "
            "kind='classification' if they are names"
        )
    if words and decimals:
        raise DataError(
            f"{where}: expected names or numbers as labels, got {words[0]!r} beside {decimals[0]!r}: correct them, or "
            "give kind='classification' if all are names"
        )


def _require_one_spelling(names: Iterable[str], where: str) -> None:
    """Raise `DataError` for classes that differ in case only."""
    first: dict[str, str] = {}
    for name in sorted(names):
        other = first.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(
                f"{where}: the labels {other!r} and {name!r} differ in case only: write them alike"
            )


def _index(names: Sequence[str]) -> dict[str, int]:
    """Canonical label to class."""
    return {canonical(name): i for i, name in enumerate(names)}


def encode(rows: Rows, scheme: LabelScheme) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Labels `(rows,)` as int64 class indices or float64 values (0 for a missing label), and which rows have one.

    Raises:
        DataError: a label that is not a class of the scheme, not a number, or out of bounds.
    """
    value_of = {
        label: _value(label, scheme, rows.where) for label in set(rows.label) if not is_missing(label)
    }
    labelled = np.array([not is_missing(value) for value in rows.label], dtype=bool)
    dtype = np.float64 if scheme.kind == "regression" else np.int64
    if missing := int((~labelled).sum()):
        _LOG.warning("%s: %d rows without a label dropped", rows.where, missing)
    return np.array([value_of.get(value, 0) for value in rows.label], dtype=dtype), labelled


def require_classes(labels: NDArray[np.generic], scheme: LabelScheme, where: str) -> None:
    """Raise `DataError` if all labels are one class or value: there is nothing to learn."""
    distinct = np.unique(labels)
    if len(distinct) > 1:
        return
    only = repr(scheme.names[int(distinct[0])]) if scheme.names else f"the value {distinct[0]}"
    raise DataError(
        f"{where}: expected at least two different labels, got {only} in each of {len(labels)} rows"
    )


def _value(label: Any, scheme: LabelScheme, where: str) -> float:
    """A class index, or a number."""
    text = canonical(label)
    if scheme.kind == "classification":
        index = scheme.index or {}
        if text not in index:
            raise DataError(f"{where}: {unknown_name('label', text, index)}")
        return index[text]
    if NUMBER.fullmatch(text) is None:
        raise DataError(f"{where}: expected a number as regression label, got {text!r}")
    low, high = scheme.bounds or (-LARGEST, LARGEST)
    if not low <= float(text) <= high:
        raise DataError(f"{where}: label {text} is outside the range {low:g} … {high:g}")
    return float(text)


def _class_order(name: str) -> tuple[int, int, str]:
    """Sort key: whole numbers by value, then everything else by spelling."""
    return (0, int(name), name) if _INTEGER.fullmatch(name) else (1, 0, name)
