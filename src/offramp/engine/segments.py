"""What the engine needs of a framework: three calls over the stretches between exits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Evidence, Kind

State = TypeVar("State")
Batch = Mapping[str, NDArray[np.int64]]  # input_ids, attention_mask, token_type_ids: (batch, length)


class Segments(Protocol[State]):
    """A model cut at its exits. Torch, ONNX Runtime and a Multi-Model cascade each implement it."""

    exit_layers: tuple[int, ...]
    kind: Kind
    gates: bool
    reads_padding: bool  # batches must then hold texts of one length

    def start(self, batch: Batch) -> State:
        """Whatever comes before the first segment: a state that holds the whole batch."""

    def run(self, k: int, state: State) -> tuple[State, Evidence]:
        """Run segment `k` (0-based) and its head: the new state, and the evidence of exit `k` in numpy."""

    def take(self, state: State, rows: NDArray[np.intp]) -> State:
        """The state of some of its rows, in the order of `rows`."""

    def join(self, states: Sequence[State]) -> State:
        """The rows of several states, at least one, behind each other; all of one padded length."""

    def flops(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FLOPs by length: of leaving at each exit `(examples, exits)`, of the full model `(examples,)`."""


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
