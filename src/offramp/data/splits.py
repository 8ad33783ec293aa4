"""Cut splits: stratified, seeded, and without a row in two of them.

A split is an arrow table with the columns `id`, `text`, `label`, and optionally `text_pair` and `group`. Rows of one
group, such as a page, stay in the same split.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.seeding import generator

_LOG = logging.getLogger(__name__)
_SHARE, _MOST = 0.1, 1000  # of the rows, when no size is given


def arrange(
    splits: Mapping[str, Any],
    *,
    name: str,
    stratify: bool,
    calibration_size: int | None = None,
    validation_size: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Complete the splits of a source to train, calibration, validation (and test), which share no row.

    Args:
        splits: arrow tables; without "train", "validation" is divided. Official validation and test rows are
            never dropped: train and calibration lose the rows that are also in them.
        name: of the data, for messages.
        stratify: keep the shares of the classes.
        calibration_size, validation_size: rows to cut for a missing split; by default 10 % of train, at most
            1,000, and at least one row of each class that has two.
        seed: chooses the rows.

    Raises:
        DataError: too few rows to cut from.
    """
    have = dict(splits)
    if "train" not in have:
        have["train"] = have.pop("validation")
        _LOG.info("%s: has no training file; its validation rows are split with seed %d", name, seed)
    default = min(_MOST, round(_SHARE * len(have["train"])))
    held = [split for split in have if split not in ("train", "calibration")]
    for split in ("train", "calibration"):
        if split in have:
            have[split] = _drop(have[split], [have[other] for other in held], f"{name}: {split}")
    for split, size in (("validation", validation_size), ("calibration", calibration_size)):
        if split not in have:
            rng = generator(seed, split)
            have["train"], have[split] = _cut(have["train"], size, default, stratify, rng, f"{name}: {split}")
    others = [table for split, table in have.items() if split != "train"]
    have["train"] = _drop(have["train"], others, f"{name}: train")
    order = ("train", "calibration", "validation", "validation_mismatched", "test")
    return {split: have[split] for split in order if split in have}


def stratified_order(
    n: int,
    labels: NDArray[np.generic] | None,
    rng: np.random.Generator,
    last: NDArray[np.bool_] | None = None,
) -> NDArray[np.intp]:
    """An order of `n` row numbers whose prefixes all keep the shares of the classes.

    The r-th of the c rows of a class has the position (r + 1/2) / c. The first row of each class leads, so a
    prefix as long as the number of classes has every class.

    Args:
        labels: `(n,)` class indices, or None for a plain shuffle.
        last: `(n,)` rows that follow the other rows of their class.
    """
    shuffled = rng.permutation(n)
    if last is not None:
        shuffled = shuffled[np.argsort(last[shuffled], kind="stable")]
    if labels is None or n == 0:
        return shuffled
    _, inverse, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(inverse, kind="stable")
    rank = np.empty(n, dtype=np.intp)
    rank[by_class] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    position = np.where(rank == 0, -1.0, (rank + 0.5) / counts[inverse])
    return shuffled[np.argsort(position, kind="stable")]


def row_codes(tables: list[Any]) -> list[NDArray[np.int64]]:
    """A number for each row, equal for equal (text, pair), over all tables."""
    import pyarrow as pa

    columns = [c for c in ("text", "text_pair") if c in tables[0].column_names]
    code = np.zeros(sum(len(t) for t in tables), dtype=np.int64)
    for column in columns:
        whole = pa.concat_tables([t.select([column]) for t in tables])[column].combine_chunks()
        distinct = whole.dictionary_encode()
        code = code * max(len(distinct.dictionary), 1) + distinct.indices.to_numpy(zero_copy_only=False)
    return np.split(code, np.cumsum([len(t) for t in tables])[:-1])


def _drop(table: Any, others: list[Any], what: str) -> Any:
    """The rows of `table` that are in none of `others`."""
    if not others:
        return table
    mine, *theirs = row_codes([table, *others])
    keep = ~np.isin(mine, np.concatenate(theirs))
    if dropped := int((~keep).sum()):
        _LOG.info("%s: %d rows dropped, which are also in another split", what, dropped)
    if not keep.any():
        raise DataError(
            f"{what}: each of its {len(table)} rows is also in another split; give different files"
        )
    return table.filter(keep)


def _cut(
    table: Any, size: int | None, default: int, stratify: bool, rng: np.random.Generator, what: str
) -> tuple[Any, Any]:
    """The rest, and the `size` rows cut off. The rest loses further copies of the cut rows."""
    grouped = "group" in table.column_names
    if grouped:
        codes = table["group"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        rows = _whole_groups(codes, size or default, rng)
    else:
        codes = row_codes([table])[0]
        rows = _single_rows(codes, table["label"].to_numpy() if stratify else None, size, default, rng)
    keep = ~np.isin(codes, codes[rows])
    if len(rows) < (1 if grouped else size or 1) or not keep.any():
        raise DataError(
            f"{what}: cannot cut {size or 'any'} of {len(table)} rows and leave each class some to train on; "
            "give more rows, a smaller size, or a file of its own for this split"
        )
    return table.filter(keep), table.take(np.sort(rows))


def _single_rows(
    codes: NDArray[np.int64],
    labels: NDArray[np.generic] | None,
    size: int | None,
    default: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Rows to cut: all different, rows with copies last, and one row of each class stays."""
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    classes = np.zeros(len(first), dtype=int) if labels is None else labels[first]
    order = stratified_order(len(first), classes, rng, last=counts > 1)
    _, from_end = np.unique(classes[order[::-1]], return_index=True)
    order = np.delete(order, len(order) - 1 - from_end)
    least = len(np.unique(classes[order]))
    return first[order[: max(default, least) if size is None else size]]


def _whole_groups(groups: NDArray[np.integer[Any]], size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of complete groups, in random order, as long as they fit into `size`."""
    counts = np.bincount(groups)
    left, taken = size, []
    for group in rng.permutation(len(counts)):
        if counts[group] <= left:
            taken.append(group)
            left -= counts[group]
    return np.flatnonzero(np.isin(groups, taken))
