"""Token ids as padded batches: sorted by length, padded on the right, with their original positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import whole
from offramp._core.errors import DataError

Encoding = Mapping[str, Sequence[int]]  # one text: input name to a list of ints; all of one length
PaddedBatch = dict[str, NDArray[np.int64]]
Numbered = tuple[NDArray[np.intp], PaddedBatch]  # a batch, after the positions of its rows among all examples
Plan = Callable[[NDArray[np.int64]], Sequence[int]]  # lengths, longest first, to the first row of each batch

MASK = "attention_mask"
T = TypeVar("T")


def check_batch_size(batch_size: int) -> int:
    """The batch size; `ConfigError` unless it is a whole number of at least 1."""
    return whole("batch_size", batch_size, 1, note="1 runs the texts one by one")


def token_counts(encodings: Sequence[Encoding]) -> NDArray[np.int64]:
    """Number of tokens `(examples,)` of each encoding, without padding.

    Raises:
        DataError: an encoding is empty, has inputs of different lengths, or other inputs than the first encoding.
    """
    counts = np.zeros(len(encodings), dtype=np.int64)
    for row, encoding in enumerate(encodings):
        if set(encoding) != set(encodings[0]):
            raise DataError(
                f"encoding {row} has the inputs {sorted(encoding)}, encoding 0 has {sorted(encodings[0])}: "
                "encode all texts with one tokenizer and the same options"
            )
        sizes_seen = {len(values) for values in encoding.values()}
        if len(sizes_seen) != 1 or 0 in sizes_seen:
            sizes = {name: len(values) for name, values in encoding.items()}
            raise DataError(
                f"encoding {row} needs one positive length for all its inputs, got {sizes or 'no inputs'}: "
                "encode it without padding and with special tokens"
            )
        counts[row] = sizes_seen.pop()
    return counts


def pad(
    encodings: Sequence[Encoding],
    pad_values: Mapping[str, int] | None = None,
    counts: NDArray[np.int64] | None = None,
) -> PaddedBatch:
    """Pad encodings on the right to the longest of them.

    Args:
        encodings: at least one; all with the same input names.
        pad_values: the padding value of each input, by name; 0 by default, and always 0 for the mask.
        counts: their `token_counts`, if already counted.

    Returns:
        `(batch, length)` int64 arrays by input name; a missing attention mask is added.

    Raises:
        DataError: see `token_counts`.
    """
    values = {**(pad_values or {}), MASK: 0}
    counts = token_counts(encodings) if counts is None else counts
    shape = (len(encodings), int(counts.max()))
    batch = {name: np.full(shape, values.get(name, 0), dtype=np.int64) for name in encodings[0]}
    for name, array in batch.items():
        for row, encoding in enumerate(encodings):
            array[row, : counts[row]] = encoding[name]
    if MASK not in batch:
        batch[MASK] = (np.arange(shape[1]) < counts[:, None]).astype(np.int64)
    return batch


def batches(
    encodings: Sequence[Encoding],
    batch_size: int,
    pad_values: Mapping[str, int] | None = None,
    counts: NDArray[np.int64] | None = None,
    plan: Plan | None = None,
    alike: bool = False,
) -> Iterator[Numbered]:
    """Padded batches of examples of similar length, made one at a time.

    Args:
        encodings: any number.
        batch_size: rows of a batch; the last one may have fewer.
        pad_values: as in `pad`.
        counts: their `token_counts`, if already counted.
        plan: gives the first row of each batch; by default one every `batch_size` rows. See `plan_batches`.
        alike: only texts of one length share a batch, without padding.

    Yields:
        The batch's rows as indices into `encodings` `(batch,)`, and its padded inputs.

    Raises:
        ConfigError: `batch_size` is below 1.
        DataError: see `token_counts`.
    """
    batch_size = check_batch_size(batch_size)
    counts = token_counts(encodings) if counts is None else counts
    # Long texts first: a batch that does not fit in memory fails at once, not after an hour.
    order = np.argsort(-counts, kind="stable")
    starts: Sequence[int] = plan(counts[order]) if plan and len(order) else range(0, len(order), batch_size)
    if alike:
        starts = sorted({*starts, *np.flatnonzero(np.diff(counts[order], prepend=0)).tolist()})
    for start, end in pairwise([*starts, len(order)]):
        rows = order[start:end]
        yield rows, pad([encodings[row] for row in rows], pad_values, counts[rows])


def windows(encodings: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of `size` items, the last maybe shorter, read only when needed."""
    source = iter(encodings)
    while window := list(islice(source, size)):
        yield window
