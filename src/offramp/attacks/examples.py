"""The examples of a data set to attack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from offramp._core.errors import DataError
from offramp._core.numbers import is_number
from offramp._core.seeding import generator
from offramp._core.trace import Kind
from offramp.attacks.text.attacked_text import AttackedText
from offramp.data import require_split

if TYPE_CHECKING:
    from datasets import Dataset

SLICE = 256  # rows read at once


@dataclass(frozen=True)
class Example:
    id: int
    text: AttackedText
    label: int | float | None


class Examples:
    """The examples of a data set, read on demand: only ids stay in memory.

    Args:
        dataset: columns `text`, for pairs `text_pair`, and optionally `id` and `label`.
        kind: the kind of task, which decides if labels are class indices or numbers; None accepts either.

    Attributes:
        ids: of all examples, in order; row numbers if the data have no ids.

    Raises:
        DataError: no examples, no column `text`, a text that is not a string, ids that repeat or are not whole
            numbers, or labels that do not fit the task.
    """

    def __init__(self, dataset: Dataset, kind: Kind | None = None) -> None:
        self.names: list[str] = dataset.column_names
        if "text" not in self.names:
            raise DataError(
                f"expected a column 'text', found {self.names}: load the data with offramp.load_data"
            )
        if not len(dataset):
            raise DataError("the data set is empty: there is nothing to attack")
        self.dataset = dataset
        self.ids: list[int] = list(dataset["id"]) if "id" in self.names else list(range(len(dataset)))
        for id in self.ids:
            if not is_number(id, whole=True):
                raise DataError(f"expected whole numbers as ids, got {id!r:.80}: number the rows")
        if len(set(self.ids)) < len(self.ids):
            repeated = len(self.ids) - len(set(self.ids))
            raise DataError(f"expected different ids, got {repeated} repeated: number the rows")
        for _, segments in self.segments(range(len(dataset))):
            for text in segments:
                if not isinstance(text, str):
                    raise DataError(
                        f"expected texts as strings, got {text!r:.80}: drop the rows without text"
                    )
        whole = kind == "classification"
        for label in self.labels(range(len(self))):
            if label is not None and not is_number(label, whole=whole):
                wanted = "class indices" if whole else "numbers"
                raise DataError(
                    f"expected {wanted} as labels, or None, got {label!r:.80}: load the data with offramp.load_data"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def segments(self, positions: Sequence[int]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Ids and texts of the rows at these positions, read a slice at a time."""
        for start in range(0, len(positions), SLICE):
            chunk = positions[start : start + SLICE]
            rows = self.dataset.select(chunk)
            columns = [rows[name] for name in ("text", "text_pair") if name in self.names]
            yield from zip((self.ids[i] for i in chunk), zip(*columns, strict=True), strict=True)

    def labels(self, positions: Sequence[int]) -> list[int | float | None]:
        """The labels of the rows at these positions; None if there are none."""
        if "label" not in self.names:
            return [None] * len(positions)
        return list(self.dataset.select(positions)["label"])

    def take(self, positions: Sequence[int]) -> list[Example]:
        """The examples at these positions."""
        return [
            Example(id, AttackedText.of(*segments), label)
            for (id, segments), label in zip(self.segments(positions), self.labels(positions), strict=True)
        ]


def read_examples(dataset: Dataset) -> list[Example]:
    """All examples of a small data set; raises the errors of `Examples`."""
    examples = Examples(require_split(dataset))
    return examples.take(range(len(examples)))


def halves(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Draw `count` positions into two halves, each in order, the second at least as large; `DataError` below two."""
    if count < 2:
        raise DataError(f"expected at least 2 examples, one to search on and one to try, got {count}")
    drawn = set(generator(seed, "halves").permutation(count)[: count // 2].tolist())
    return sorted(drawn), [i for i in range(count) if i not in drawn]


def texts_fingerprint(rows: Iterable[tuple[int, tuple[str, ...]]]) -> str:
    """A hash of ids and texts in order: 16 hexadecimal digits."""
    digest = hashlib.sha256(b"[")
    for i, row in enumerate(rows):
        digest.update((", " * (i > 0) + repr(row)).encode("utf-8", "surrogatepass"))
    digest.update(b"]")
    return digest.hexdigest()[:16]
