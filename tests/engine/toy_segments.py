"""A net small enough to work out by hand, cut into segments, that writes down what the engine asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Evidence, Kind, Trace


@dataclass(frozen=True)
class ToyState:
    """A batch between two segments: who is in it, their hidden numbers, and the segment that comes next."""

    names: NDArray[np.int64]
    hidden: NDArray[np.int64]
    next: int


@dataclass
class ToyNet:
    """Hidden numbers below M: `h_0 = Σ ids mod M`, `h_k = (3·h_{k−1} + k) mod M`; exit k says `table[k, h]`.

    The first token of an encoding is its name, by which the log tells rows apart.
    """

    table: NDArray[np.float32]  # (exits, M, classes)
    gate_table: NDArray[np.float32] | None = None  # (exits, M)
    kind: Kind = "classification"
    log: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exit_layers = tuple(2 * (k + 1) for k in range(len(self.table)))
        self.reads_padding = False
        self.gates = self.gate_table is not None

    def begin(self, ids: Any, mask: Any) -> Any:
        return (ids * mask).sum(axis=1) % self.table.shape[1]

    def advance(self, hidden: Any, k: int) -> Any:
        return (3 * hidden + k + 1) % self.table.shape[1]

    def start(self, batch: Any) -> ToyState:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert ids.shape == mask.shape
        assert (np.diff(mask, axis=1) <= 0).all(), "padding belongs on the right"
        names = ids[:, 0]
        self.log.append(("start", names.tolist()))
        return ToyState(names, self.begin(ids, mask), 0)

    def run(self, k: int, state: ToyState) -> tuple[ToyState, Evidence]:
        assert k == state.next, f"segment {k} run on a state that waits for segment {state.next}"
        assert len(state.hidden), "a segment was run on nobody"
        self.log.append(("run", k, state.names.tolist()))
        hidden = self.advance(state.hidden, k)
        gate = None if self.gate_table is None else self.gate_table[k, hidden]
        residual = hidden / self.table.shape[1]
        evidence = Evidence(k, len(self.table), self.table[k, hidden], gate, residual=residual)
        return ToyState(state.names, hidden, k + 1), evidence

    def take(self, state: ToyState, rows: NDArray[np.intp]) -> ToyState:
        self.log.append(("take", state.next - 1, state.names[rows].tolist()))
        assert 0 < len(rows) < len(state.names), "a needless take"
        return ToyState(state.names[rows], state.hidden[rows], state.next)

    def join(self, states: Any) -> ToyState:
        assert len(states) > 1, "a needless join"
        assert len({state.next for state in states}) == 1
        names, hidden = (np.concatenate([getattr(s, f) for s in states]) for f in ("names", "hidden"))
        self.log.append(("join", states[0].next - 1, names.tolist()))
        return ToyState(names, hidden, states[0].next)

    def flops(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Token · layer, and 1 for each head that ran."""
        assert len(lengths), "nobody's cost was asked for"
        layers = np.array(self.exit_layers)
        heads = np.arange(1, len(layers) + 1)
        return (lengths[:, None] * layers + heads).astype(float), (lengths * layers[-1] + 1).astype(float)

    def trace(self, encodings: list[dict[str, list[int]]], labels: Any = None) -> Trace:
        """What the net says about each text, worked out with plain integers: no batch, no padding."""
        exits, _, classes = self.table.shape
        logits = np.zeros((len(encodings), exits, classes), dtype=np.float32)
        gates = np.zeros((len(encodings), exits), dtype=np.float32)
        residuals = np.zeros((len(encodings), exits))
        costs = np.zeros((len(encodings), exits))
        for row, encoding in enumerate(encodings):
            ids = np.array([encoding["input_ids"]])
            hidden = int(self.begin(ids, np.ones_like(ids))[0])
            for k in range(exits):
                hidden = self.advance(hidden, k)
                logits[row, k] = self.table[k, hidden]
                gates[row, k] = 0 if self.gate_table is None else self.gate_table[k, hidden]
                residuals[row, k] = hidden / self.table.shape[1]
                costs[row, k] = len(encoding["input_ids"]) * self.exit_layers[k] + k + 1
        full = np.array([len(e["input_ids"]) * self.exit_layers[-1] + 1.0 for e in encodings])
        known = None if labels is None else np.asarray(labels)
        return Trace(
            logits,
            self.exit_layers,
            costs,
            full,
            known,
            gates if self.gates else None,
            kind=self.kind,
            residuals=residuals,
        )


class Scripted(ToyNet):
    """A net that says about text number i what the script says: logits `(examples, exits, classes)`."""

    def __init__(self, script: Any, **options: Any) -> None:
        super().__init__(np.asarray(script, dtype=np.float32).transpose(1, 0, 2), **options)

    def begin(self, ids: Any, mask: Any) -> Any:
        return ids[:, 0]

    def advance(self, hidden: Any, k: int) -> Any:
        return hidden


def texts(lengths: list[int]) -> list[dict[str, list[int]]]:
    """Encodings of these lengths, named 0, 1, 2, …"""
    return [
        {"input_ids": [name] + [1] * (n - 1), "attention_mask": [1] * n} for name, n in enumerate(lengths)
    ]
