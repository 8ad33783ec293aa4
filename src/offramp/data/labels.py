"""Turn the labels of a source into class indices, or into numbers for regression."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, unknown_name
from offramp._core.trace import Kind
from offramp.data.rows import NUMBER, Rows, Source, is_missing

_LOG = logging.getLogger(__name__)
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
    numbers = all(NUMBER.fullmatch(name) for name in names_seen)
    if kind == "regression" or (kind is None and numbers and not all(map(_INTEGER.fullmatch, names_seen))):
        return LabelScheme("regression")
    if len(names_seen) > 100 and len(names_seen) > len(train.label) / 2:
        raise DataError(
            f"{train.where}: {len(names_seen)} different labels in {len(train.label)} rows are not classes: "
            "choose another label column, or kind='regression' for numbers"
        )
    names = tuple(sorted(names_seen, key=_class_order))
    return LabelScheme("classification", names, _index(names))


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
