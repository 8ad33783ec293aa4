"""Lists of token ids into rectangles: sorted by length, padded on the right, the order kept beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError

Encoding = Mapping[str, Sequence[int]]  # one text: lists of ints of one length, under the model's input names
PaddedBatch = dict[str, NDArray[np.int64]]
Plan = Callable[[NDArray[np.int64]], Sequence[int]]  # lengths, longest first, to where each batch starts

MASK = "attention_mask"
T = TypeVar("T")


def check_batch_size(batch_size: int) -> int:
    """The batch size, or a `ConfigError` where it is not at least 1."""
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}: 1 runs the texts one by one")
    return batch_size


def token_counts(encodings: Sequence[Encoding]) -> NDArray[np.int64]:
    """Number of tokens `(examples,)` of each encoding, without any padding.

    Raises:
        DataError: an encoding is empty, has inputs of several lengths, or other inputs than the first one.
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
    length: int = 0,
) -> PaddedBatch:
    """Pad encodings on the right to the longest of them, or further.

    Args:
        encodings: at least one; all with the same input names.
        pad_values: what to pad each input with; 0 where a name is not given. The mask's is always 0.
        counts: their `token_counts`, where they are known.
        length: pad to so many tokens, where none is longer.

    Returns:
        `(batch, length)` int64 arrays by input name; an attention mask is added where there is none.

    Raises:
        DataError: as `token_counts`.
    """
    values = {**(pad_values or {}), MASK: 0}
    counts = token_counts(encodings) if counts is None else counts
    shape = (len(encodings), max(int(counts.max()), length))
    batch = {name: np.full(shape, values.get(name, 0), dtype=np.int64) for name in encodings[0]}
    for name, array in batch.items():
        for row, encoding in enumerate(encodings):
            array[row, : counts[row]] = encoding[name]
    if MASK not in batch:
        batch[MASK] = (np.arange(shape[1]) < counts[:, None]).astype(np.int64)
    return batch


def by_length(counts: NDArray[np.int64]) -> NDArray[np.intp]:
    """The order `(examples,)` that puts long examples first and keeps equal ones as they came.

    Long first: a batch that does not fit in memory fails at once, not after an hour.
    """
    return np.argsort(-counts, kind="stable")


def batches(
    encodings: Sequence[Encoding],
    batch_size: int,
    pad_values: Mapping[str, int] | None = None,
    counts: NDArray[np.int64] | None = None,
    multiple: int = 1,
    plan: Plan | None = None,
    alike: bool = False,
) -> Iterator[tuple[NDArray[np.intp], PaddedBatch]]:
    """Padded batches of examples of like length, made one at a time.

    Args:
        encodings: any number.
        batch_size: rows of a batch; the last one may have fewer.
        pad_values: as in `pad`.
        counts: their `token_counts`, where they are known.
        multiple: pad every batch to a multiple of so many tokens, but no further than the longest text.
        plan: says where the batches start, in place of one every `batch_size` rows; see `engine.planning`.
        alike: texts of one length alone share a batch, and nothing is padded.

    Yields:
        The batch's rows as indices into `encodings` `(batch,)`, and its padded inputs.

    Raises:
        ConfigError: `batch_size` is below 1.
        DataError: as `token_counts`.
    """
    check_batch_size(batch_size)
    counts = token_counts(encodings) if counts is None else counts
    order = by_length(counts)
    starts: Sequence[int] = plan(counts[order]) if plan and len(order) else range(0, len(order), batch_size)
    if alike:
        multiple, starts = 1, sorted({*starts, *np.flatnonzero(np.diff(counts[order], prepend=0)).tolist()})
    for start, end in pairwise([*starts, len(order)]):
        rows = order[start:end]
        length = min(-(-int(counts[rows[0]]) // multiple) * multiple, int(counts[order[0]]))
        yield rows, pad([encodings[row] for row in rows], pad_values, counts[rows], length)


def windows(encodings: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive stretches of an iterable, `size` long but for the last, read only when asked for."""
    source = iter(encodings)
    while window := list(islice(source, size)):
        yield window
