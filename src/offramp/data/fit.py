"""Whether data fit a model: the same kind of task, the same classes in the same order, labels among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.text import some_of
from offramp._core.trace import Kind

if TYPE_CHECKING:
    from datasets import Dataset

    from offramp.data.text_data import TextData


def check_fit(
    data: TextData | Dataset, labels: Sequence[str], kind: Kind, *, model: str = "the model"
) -> None:
    """Refuse data of another task than a model's.

    Args:
        data: what the model is run on: all splits, or one of them. A data set that does not name its classes is
            taken for one of the model's.
        labels: the model's class names in order; empty for regression.
        kind: the model's kind of task.
        model: its name in the message.

    Raises:
        DataError: another kind of task, or other classes or another order of them.
    """
    from offramp.data.text_data import TextData

    name = data.name if isinstance(data, TextData) else "the data set"
    names = data.labels if isinstance(data, TextData) else class_names(data)
    if names is None:
        return
    task: Kind = data.kind if isinstance(data, TextData) else "classification"
    if kind != task:
        raise DataError(f"{model} is a {kind} model, but {name} is a {task} task: give other data")
    if kind == "classification" and tuple(labels) != tuple(names):
        own, other = (some_of([repr(label) for label in side], 6) for side in (labels, names))
        raise DataError(
            f"{model} has the labels {own}, but {name} has {other}: give data with the labels that the model was "
            "trained on, in the same order"
        )


def fitting_labels(dataset: Dataset, labels: Sequence[str], kind: Kind) -> NDArray[np.generic] | None:
    """The labels of a data set that fits a model: int64 classes or float32 values; None where there are none.

    Args:
        dataset: the data set; its column `label` is read.
        labels, kind: the model's, as for `check_fit`.

    Raises:
        DataError: as of `check_fit`, or labels that are no class of the model, or no finite number.
    """
    check_fit(dataset, labels, kind)
    if "label" not in dataset.column_names:
        return None
    values = np.asarray(list(dataset["label"]))
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


def class_names(dataset: Dataset) -> tuple[str, ...] | None:
    """The names of the classes in the column `label`, where the data set has them."""
    from datasets import ClassLabel

    feature = dataset.features.get("label")
    return tuple(feature.names) if isinstance(feature, ClassLabel) else None
