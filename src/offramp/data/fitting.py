"""Whether data fit a model: the kind of task, the classes and their order, single texts or pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, unknown_name
from offramp._core.text import check_pairs, some_of
from offramp._core.trace import Kind
from offramp.data.text_data import TextData

if TYPE_CHECKING:
    from datasets import Dataset


def check_fit(
    data: TextData | Dataset,
    labels: Sequence[str],
    kind: Kind,
    *,
    pair: bool | None = None,
    model: str = "the model",
) -> None:
    """Refuse data of another task than a model's.

    Args:
        data: all splits, or one of them. A data set without class names is assumed to have the model's.
        labels, kind: the model's; the class names in order, none for regression.
        pair: whether the model was trained on pairs of texts; None if unknown.
        model: its name in the message.

    Raises:
        DataError: another kind of task, other classes or another order of them, or pairs for single texts.
    """
    name = data.name if isinstance(data, TextData) else "the data set"
    pairs = data.pair if isinstance(data, TextData) else "text_pair" in data.column_names
    check_pairs(pairs, pair, name, model=model)
    names = data.labels if isinstance(data, TextData) else class_names(data)
    if names is None:
        return
    task: Kind = data.kind if isinstance(data, TextData) else "classification"
    if kind != task:
        raise DataError(f"{model} is a {kind} model, but {name} is a {task} task: give other data")
    if kind == "regression" or tuple(labels) == tuple(names):
        return
    own, other = (some_of([repr(label) for label in side], 6) for side in (labels, names))
    remedy = "give data with the labels that the model was trained on, in the same order"
    if set(labels) == set(names):
        by_name = "the labels as strings, which are matched by name"
        arranged = "data.with_labels(model.labels)" if isinstance(data, TextData) else by_name
        remedy = f"make the model with its labels in the same order as the data, or give {arranged}"
    raise DataError(f"{model} has the labels {own}, but {name} has {other}: {remedy}")


def fitting_labels(
    dataset: Dataset, labels: Sequence[str], kind: Kind, *, pair: bool | None = None
) -> NDArray[np.generic] | None:
    """The labels of a data set that fits a model: int64 classes or float32 values; None if it has none.

    Strings are matched with the model's class names.

    Raises:
        DataError: see `check_fit`; or labels that are not classes of the model, or not finite numbers.
    """
    check_fit(dataset, labels, kind, pair=pair)
    if "label" not in dataset.column_names:
        return None
    listed = list(dataset["label"])
    if kind == "classification" and any(isinstance(label, str) for label in listed):
        return _by_name(listed, labels)
    values = np.asarray(listed)
    if kind == "classification":
        fit = values.dtype.kind in "iu" and (
            not len(values) or 0 <= values.min() <= values.max() < len(labels)
        )
        expected = f"class labels in 0..{len(labels) - 1}"
    else:
        fit = values.dtype.kind in "iuf" and bool(np.isfinite(values).all())
        expected = "finite numbers as labels"
    if not fit:
        raise DataError(f"expected {expected}, got {list(dict.fromkeys(values.tolist()))[:5]}")
    return values.astype(np.int64 if kind == "classification" else np.float32)


def _by_name(names: Sequence[Any], labels: Sequence[str]) -> NDArray[np.int64]:
    """The classes of labels that are given by name."""
    index = {label: i for i, label in enumerate(labels)}
    for name in dict.fromkeys(names):
        if name not in index:
            raise DataError(unknown_name("label", name, labels))
    return np.array([index[name] for name in names], dtype=np.int64)


def class_names(dataset: Dataset) -> tuple[str, ...] | None:
    """The names of the classes in the column `label`, if the data set has them."""
    from datasets import ClassLabel

    feature = dataset.features.get("label")
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None
