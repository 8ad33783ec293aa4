"""Labelled text as every reader returns it: named splits with fixed columns, and facts about the labels."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError, MissingExtraError, unknown_name
from offramp._core.seeding import generator
from offramp._core.trace import Kind
from offramp.data.splits import stratified_order

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)


class UnknownSplitError(DataError, KeyError):
    """A split that the data lack; also a KeyError, which the Mapping protocol expects."""

    __str__ = Exception.__str__


@dataclass(frozen=True, eq=False, repr=False)
class TextData(Mapping[str, "Dataset"]):
    """Labelled text in the splits "train", "calibration", "validation" and, where labelled, "test".

    Every split has the columns `id` (row number in its source, from 0), `text`, `text_pair` (pairs only) and
    `label` (class index, or float for regression). No row of train or calibration is in a later split.

    Attributes:
        name: of the source.
        splits: name to `datasets.Dataset`, in memory.
        labels: class names in order; empty for regression.
        kind: "classification" or "regression".
        pair: whether examples are pairs of texts.
        metrics: names from `offramp.metrics`; the first is the main one.
    """

    name: str
    splits: dict[str, Dataset]
    labels: tuple[str, ...]
    kind: Kind
    pair: bool
    metrics: tuple[str, ...]

    def __getitem__(self, split: str) -> Dataset:
        if split not in self.splits:
            raise UnknownSplitError(unknown_name(f"split of {self.name}", split, self.splits))
        return self.splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(rows):,}" for split, rows in self.items())
        what = f"{self.num_labels} classes" if self.labels else "regression"
        return f"TextData({self.name}: {sizes}; {what}{', pairs' if self.pair else ''})"

    @property
    def num_labels(self) -> int:
        """Number of classes K, or 1 for regression: the columns of a head."""
        return len(self.labels) or 1

    def sample(self, split: str, examples: int | None = None, seed: int = 0) -> Dataset:
        """A split, or some of its rows, chosen by `seed`, in their order.

        Raises:
            ConfigError: fewer than one example.
        """
        rows = self[split]
        if examples is None or examples >= len(rows):
            return rows
        if examples < 1:
            raise ConfigError(f"examples must be at least 1, got {examples}")
        chosen = generator(seed, "examples").permutation(len(rows))[:examples]
        return rows.select(sorted(chosen.tolist()))

    def subsample(self, n: int, seed: int = 0) -> TextData:
        """The same data with at most `n` training rows; every other split stays as it is.

        Classes keep their shares, and each class has a row where `n` allows it. With the same seed, a smaller
        sample is contained in every larger one.

        Args:
            n: number of training rows; a larger number than there are means all.
            seed: chooses the rows.

        Returns:
            New `TextData`; the rows stay in their order.

        Raises:
            DataError: `n` is below 1.
        """
        if n < 1:
            raise DataError(f"expected at least 1 training row, got n={n}")
        table = _arrow(self["train"])
        if n > len(table):
            _LOG.info("%s: all %d training rows kept, %d were requested", self.name, len(table), n)
        labels = table["label"].to_numpy() if self.kind == "classification" else None
        order = stratified_order(len(table), labels, generator(seed, "subsample"))
        rows = np.sort(order[:n])
        return replace(self, splits={**self.splits, "train": make_dataset(table.take(rows), self.labels)})

    def calibrated_on(self, split: str, seed: int = 0) -> TextData:
        """The same data with half of another split as its calibration split, in place of the one it had.

        For data whose training rows differ from later ones: those of SST-2 are phrases, and a threshold fitted on
        phrases does not hold for whole sentences. The split keeps its other half.

        Args:
            split: the split that is halved; neither train nor calibration.
            seed: chooses the half, each class with its share.

        Raises:
            DataError: train, calibration, or a split of fewer than two rows.
        """
        if split in ("train", "calibration") or len(self[split]) < 2:
            raise DataError(
                f"expected a split of at least two rows that the model is not trained on, got {split!r}: try validation"
            )
        table = _arrow(self[split])
        labels = table["label"].to_numpy() if self.kind == "classification" else None
        order = stratified_order(len(table), labels, generator(seed, "calibrated_on"))
        halves = {"calibration": order[: len(order) // 2], split: order[len(order) // 2 :]}
        taken = {name: make_dataset(table.take(np.sort(rows)), self.labels) for name, rows in halves.items()}
        return replace(self, splits={**self.splits, **taken})


def fingerprint(dataset: Dataset) -> str:
    """A hash of the examples: the same rows give the same value, in any order and from any cache.

    Args:
        dataset: has `text`, and maybe `text_pair` and `label`; `id` does not count.

    Returns:
        16 hexadecimal digits.
    """
    table = _arrow(dataset)
    columns = [
        table[name].to_pylist() for name in ("text", "text_pair", "label") if name in table.column_names
    ]
    rows = sorted(repr(row).encode("utf-8", "surrogatepass") for row in zip(*columns, strict=True))
    return hashlib.sha256(b"\n".join(rows)).hexdigest()[:16]


def overlap(a: Dataset, b: Dataset) -> int:
    """How many different (text, pair) rows are in both data sets; labels do not count.

    Args:
        a: a data set with `text`, and maybe `text_pair`.
        b: another.

    Returns:
        Number of different rows in both.
    """
    return len(_keys(a) & _keys(b))


def row_hashes(dataset: Dataset) -> NDArray[np.uint64]:
    """Sorted hashes of 64 bits, one for each different (text, pair): they identify rows without their texts.

    Args:
        dataset: has `text`, and maybe `text_pair`; labels do not count.
    """
    keys = (repr(key).encode("utf-8", "surrogatepass") for key in _keys(dataset))
    hashes = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") for key in keys]
    return np.array(sorted(hashes), dtype=np.uint64)


def make_dataset(table: Any, labels: Sequence[str]) -> Dataset:
    """An in-memory `datasets.Dataset` of an arrow table, whose column `label` names its classes."""
    try:
        from datasets import ClassLabel, Dataset, Features
    except ImportError as error:
        raise MissingExtraError("datasets", "torch") from error
    features = Features.from_arrow_schema(table.schema)
    if labels:
        features["label"] = ClassLabel(names=list(labels))
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    return Dataset.from_dict(columns, features=features)


def _arrow(dataset: Dataset) -> Any:
    """The rows as an arrow table, for any format or selection of the data set."""
    return dataset.with_format("arrow")[:]


def _keys(dataset: Dataset) -> set[tuple[str, str | None]]:
    table = _arrow(dataset)
    text = table["text"].to_pylist()
    pair = table["text_pair"].to_pylist() if "text_pair" in table.column_names else [None] * len(text)
    return set(zip(text, pair, strict=True))
