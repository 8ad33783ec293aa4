"""The trace of any segments: every exit on every text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Trace
from offramp.engine.batching import Encoding, PaddedBatch, batches, token_counts
from offramp.engine.segments import Segments

Numbered = tuple[NDArray[np.intp], PaddedBatch]


def trace_segments(
    segments: Segments[Any],
    encodings: Sequence[Encoding],
    pad_values: Mapping[str, int],
    batch_size: int = 32,
    track: Callable[[Sequence[Numbered]], Iterable[Numbered]] = iter,
) -> Trace:
    """Run every exit on every text.

    Args:
        segments: the model, cut at its exits.
        encodings: token ids without padding, one dict per text, at least one.
        pad_values: the padding value of each input.
        batch_size: rows run at once, sorted by length.
        track: passes the batches on one by one, for example to draw a progress bar.

    Returns:
        A `Trace` in the order of the texts, without labels.
    """
    exits = len(segments.exit_layers)
    logits: NDArray[np.float32] | None = None
    gates = np.empty((len(encodings), exits), dtype=np.float32) if segments.gates else None
    for rows, batch in track(list(batches(encodings, batch_size, pad_values, alike=segments.reads_padding))):
        state = segments.start(batch)
        for k in range(exits):
            state, evidence = segments.run(k, state)
            if logits is None:
                logits = np.empty((len(encodings), exits, evidence.logits.shape[1]), dtype=np.float32)
            logits[rows, k] = evidence.logits
            if gates is not None:
                gates[rows, k] = evidence.gate
    assert logits is not None, "at least one text"
    flops, full_flops = segments.flops(token_counts(encodings))
    return Trace(logits, segments.exit_layers, flops, full_flops, gates=gates, kind=segments.kind)
