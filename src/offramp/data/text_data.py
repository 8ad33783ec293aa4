"""Labelled text as every reader returns it: named splits with fixed columns, and facts about the labels."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import whole
from offramp._core.errors import DataError, MissingExtraError, unknown_name
from offramp._core.seeding import generator
from offramp._core.tables import several_splits
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
    """Labelled text in the splits "train", "calibration", "validation" and, if labelled, "test".

    Every split has the columns `id` (row number in its source, from 0), `text`, `text_pair` (pairs only) and
    `label` (class index, or float for regression). No row of train or calibration is in a later split.

    Attributes:
        labels: class names in order; empty for regression.
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
        if examples is None or whole("examples", examples, 1) >= len(rows):
            return rows
        chosen = generator(seed, "examples").permutation(len(rows))[:examples]
        return rows.select(sorted(chosen.tolist()))

    def subsample(self, n: int, seed: int = 0) -> TextData:
        """The same data with at most `n` training rows, in their order; the other splits do not change.

        Classes keep their shares, and each class has a row if `n` allows it. With the same seed, a smaller
        sample is contained in every larger one.

        Raises:
            ConfigError: `n` is no whole number of at least 1.
        """
        n = whole("n", n, 1, note="it is the number of training rows")
        order = self._order("train", generator(seed, "subsample"))
        if n > len(order):
            _LOG.info("%s: all %d training rows kept, %d were requested", self.name, len(order), n)
        return self._with_rows("train", {"train": order[:n]})

    def calibrated_on(self, split: str, seed: int = 0) -> TextData:
        """The same data with half of another split as its new calibration split.

        For data whose training rows differ from later ones: those of SST-2 are phrases, and a threshold fitted on
        phrases does not hold for whole sentences. The split keeps its other half.

        Args:
            split: the split that is halved.
            seed: chooses the half, each class with its share.

        Raises:
            DataError: train, calibration, or a split of fewer than two rows.
        """
        if split in ("train", "calibration") or len(self[split]) < 2:
            raise DataError(
                f"expected a split of at least two rows that the model is not trained on, got {split!r}: try validation"
            )
        order = self._order(split, generator(seed, "calibrated_on"))
        half = len(order) // 2
        return self._with_rows(split, {"calibration": order[:half], split: order[half:]})

    def with_labels(self, labels: Sequence[str]) -> TextData:
        """The same data with its classes in another order, such as that of a model's `labels`.

        Raises:
            DataError: other classes than those of the data.
        """
        if sorted(labels) != sorted(self.labels):
            raise DataError(f"expected the labels {list(self.labels)} in any order, got {list(labels)}")
        moved = np.array([labels.index(label) for label in self.labels])
        splits = {}
        for name, rows in self.items():
            table = _arrow(rows)
            column = table.column_names.index("label")
            classes = moved[table["label"].to_numpy()]
            splits[name] = make_dataset(table.set_column(column, "label", [classes]), labels)
        return replace(self, splits=splits, labels=tuple(labels))

    def _order(self, split: str, rng: np.random.Generator) -> NDArray[np.intp]:
        """The rows of a split in an order in which classes keep their shares."""
        labels = _arrow(self[split])["label"].to_numpy() if self.kind == "classification" else None
        return stratified_order(len(self[split]), labels, rng)

    def _with_rows(self, source: str, splits: Mapping[str, NDArray[np.intp]]) -> TextData:
        """The same data with some splits made of rows of another."""
        table = _arrow(self[source])
        made = {name: make_dataset(table.take(np.sort(rows)), self.labels) for name, rows in splits.items()}
        return replace(self, splits={**self.splits, **made})


def require_split(data: Any) -> Dataset:
    """One split, which gives Python's own values whatever its format; `DataError` for anything else."""
    from datasets import Dataset

    if isinstance(data, Mapping) and any(isinstance(split, Dataset) for split in data.values()):
        raise several_splits(data)
    if not isinstance(data, Dataset):
        raise DataError(
            f"expected one split, a datasets.Dataset, got {type(data).__name__}: load the data with "
            "offramp.load_data, and pass a split, data['validation']"
        )
    plain: Dataset = data.with_format(None)
    return plain


def require_splits(data: Any, *needed: str) -> None:
    """Raise `DataError` if the data are not data sets by the name of their split, or lack a needed split."""
    from datasets import Dataset

    if not isinstance(data, Mapping) or not all(isinstance(split, Dataset) for split in data.values()):
        kind = (
            f"a {type(data).__name__} of other things" if isinstance(data, Mapping) else type(data).__name__
        )
        raise DataError(
            f"expected data with splits, as load_data returns them, got {kind}: load the data with offramp.load_data, "
            "and pass all splits"
        )
    for split in needed:
        if split not in data:
            raise DataError(unknown_name("split", split, map(str, data)))


def require_text_data(data: Any) -> None:
    """Raise `DataError` if the data are not what `load_data` returns, which also gives the kind of task and metrics."""
    if isinstance(data, TextData):
        return
    require_splits(data)
    raise DataError(
        f"expected data with splits, as load_data returns them, got {type(data).__name__}: pass offramp.load_data(…)"
    )


def fingerprint(dataset: Dataset) -> str:
    """A hash of texts, second texts and labels, 16 hexadecimal digits: the order of the rows does not matter."""
    table = _arrow(dataset)
    columns = [
        table[name].to_pylist() for name in ("text", "text_pair", "label") if name in table.column_names
    ]
    rows = sorted(repr(row).encode("utf-8", "surrogatepass") for row in zip(*columns, strict=True))
    return hashlib.sha256(b"\n".join(rows)).hexdigest()[:16]


def overlap(a: Dataset, b: Dataset) -> int:
    """How many different (text, pair) rows are in both data sets; labels do not count."""
    return len(_keys(a) & _keys(b))


def row_hashes(dataset: Dataset) -> NDArray[np.uint64]:
    """Sorted hashes of 64 bits, one for each different (text, pair): they identify rows without their texts."""
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
