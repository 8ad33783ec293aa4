"""The examples of a data set, as an attack reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offramp._core.errors import DataError
from offramp._core.seeding import generator
from offramp.attacks.text import AttackedText


@dataclass(frozen=True)
class Example:
    """One example of the data."""

    id: int
    text: AttackedText
    label: int | float | None


def read_examples(dataset: Any) -> list[Example]:
    """The examples of a data set; ids are row numbers where it has none.

    Raises:
        DataError: no examples, no column `text`, a text that is no string, or ids that repeat.
    """
    names = dataset.column_names
    if "text" not in names:
        raise DataError(f"expected a column 'text', found {names}: load the data with offramp.load_data")
    if not len(dataset):
        raise DataError("the data set is empty: there is nothing to attack")
    ids = list(dataset["id"]) if "id" in names else list(range(len(dataset)))
    if len(set(ids)) < len(ids):
        raise DataError(f"expected different ids, got {len(ids) - len(set(ids))} repeated: number the rows")
    pairs = list(dataset["text_pair"]) if "text_pair" in names else [None] * len(ids)
    labels = list(dataset["label"]) if "label" in names else [None] * len(ids)
    texts = list(dataset["text"])
    for text in (*texts, *(pairs if "text_pair" in names else ())):
        if not isinstance(text, str):
            raise DataError(f"expected texts as strings, got {text!r:.80}: drop the rows without text")
    return [
        Example(int(id), AttackedText.of(text, pair), label)
        for id, text, pair, label in zip(ids, texts, pairs, labels, strict=True)
    ]


def halves(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Two halves drawn at random, each in the order of the data; the second is the larger one.

    Raises:
        DataError: less than two examples.
    """
    if len(examples) < 2:
        raise DataError(f"expected at least 2 examples, one to search on and one to try, got {len(examples)}")
    drawn = set(generator(seed, "halves").permutation(len(examples))[: len(examples) // 2].tolist())
    first = [e for i, e in enumerate(examples) if i in drawn]
    return first, [e for i, e in enumerate(examples) if i not in drawn]
