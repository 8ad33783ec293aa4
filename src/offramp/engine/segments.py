"""The interface between the engine and a framework: calls for the segments between exits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Evidence, Kind, Trace
from offramp.engine.batching import Encoding, Numbered, batches, token_counts

State = TypeVar("State")
Batch = Mapping[str, NDArray[np.int64]]  # input_ids, attention_mask, token_type_ids: (batch, length)


class Segments(Protocol[State]):
    """A model cut at its exits. Torch, ONNX Runtime and a Multi-Model cascade each implement it."""

    exit_layers: tuple[int, ...]
    kind: Kind
    gates: bool
    reads_padding: bool  # if true, a batch must hold texts of one length

    def start(self, batch: Batch) -> State:
        """The state of a whole batch before the first segment."""

    def run(self, k: int, state: State) -> tuple[State, Evidence]:
        """Run segment `k` (0-based) and its head: the new state, and the evidence of exit `k` in numpy."""

    def take(self, state: State, rows: NDArray[np.intp]) -> State:
        """The state of some rows, in the order of `rows`."""

    def join(self, states: Sequence[State]) -> State:
        """The concatenated rows of one or more states of the same padded length."""

    def flops(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FLOPs by length: until each exit `(examples, exits)`, and of the full model `(examples,)`."""


class Encoder(Protocol):
    """Turns texts into token ids without padding, cut to the maximum length."""

    @property
    def pad_values(self) -> Mapping[str, int]:
        """The padding value of each input."""

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""

    def __call__(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> list[dict[str, list[int]]]:
        """One dict per text: lists of ints under the model's input names."""


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
        track: wraps the iteration over the batches, for example to draw a progress bar.

    Returns:
        A `Trace` in the order of the texts, without labels.
    """
    exits = len(segments.exit_layers)
    logits: NDArray[np.float32] | None = None
    gates = np.empty((len(encodings), exits), dtype=np.float32) if segments.gates else None
    residuals: NDArray[np.float32] | None = None
    for rows, batch in track(list(batches(encodings, batch_size, pad_values, alike=segments.reads_padding))):
        state = segments.start(batch)
        for k in range(exits):
            state, evidence = segments.run(k, state)
            if logits is None:
                logits = np.empty((len(encodings), exits, evidence.logits.shape[1]), dtype=np.float32)
                residuals = None if evidence.residual is None else np.empty(logits.shape[:2], np.float32)
            logits[rows, k] = evidence.logits
            if gates is not None:
                gates[rows, k] = evidence.gate
            if residuals is not None:
                residuals[rows, k] = evidence.residual
    assert logits is not None, "at least one text"
    flops, full_flops = segments.flops(token_counts(encodings))
    return Trace(
        logits,
        segments.exit_layers,
        flops,
        full_flops,
        gates=gates,
        kind=segments.kind,
        residuals=residuals,
    )
