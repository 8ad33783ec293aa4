"""What every exit said about every example: the data structure that all analysis works on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Evidence:
    """What one exit says about a batch: all that an exit criterion may look at.

    Attributes:
        exit: index of the exit, 0-based.
        exits: number of exits E.
        logits: `(batch, classes)` float32; one column for regression.
        gate: `(batch,)` learned-gate probability of being right, or None where the model has no gates.
        label: `(batch,)` true labels; only the oracle looks at them.
    """

    exit: int
    exits: int
    logits: NDArray[np.floating]
    gate: NDArray[np.floating] | None = None
    label: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Trace:
    """One full run of a model over a data set.

    Attributes:
        logits: `(examples, exits, classes)` float32.
        exit_layers: backbone layer after which each exit sits, counted from 1, increasing.
        costs: `(examples, exits)` FLOPs spent on an example that leaves at each exit (heads counted; for a
            Multi-Model cascade the recomputation too).
        full_cost: `(examples,)` FLOPs of the full-depth model with its last head alone.
        labels: `(examples,)` int64 classes or float32 targets, or None.
        gates: `(examples, exits)` learned-gate probabilities in [0, 1], or None.
        kind: classification or regression (`classes` is then 1).
        fingerprint: identifies the data, so that nothing is reported on what it was calibrated on.
        truncated: number of examples cut to the maximum length.
    """

    logits: NDArray[np.floating]
    exit_layers: tuple[int, ...]
    costs: NDArray[np.float64]
    full_cost: NDArray[np.float64]
    labels: NDArray[np.generic] | None = None
    gates: NDArray[np.float32] | None = None
    kind: Kind = "classification"
    fingerprint: str = ""
    truncated: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, e = self.logits.shape[:2]
        assert self.logits.ndim == 3, self.logits.shape
        assert len(self.exit_layers) == e, (self.exit_layers, e)
        assert self.costs.shape == (n, e), (self.costs.shape, n, e)
        assert self.full_cost.shape == (n,), self.full_cost.shape

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def exits(self) -> int:
        """Number of exits E."""
        return self.logits.shape[1]

    @property
    def depth(self) -> int:
        """Number of layers L of the full model."""
        return self.exit_layers[-1]

    def take(self, rows: NDArray[np.intp] | slice) -> Trace:
        """The trace of a subset of the examples."""
        return replace(
            self,
            logits=self.logits[rows],
            costs=self.costs[rows],
            full_cost=self.full_cost[rows],
            labels=None if self.labels is None else self.labels[rows],
            gates=None if self.gates is None else self.gates[rows],
        )

    def evidence(self, exit: int) -> Evidence:
        """What exit `exit` (0-based) said about all examples."""
        gate = None if self.gates is None else self.gates[:, exit]
        return Evidence(exit, self.exits, self.logits[:, exit], gate, self.labels)

    def predictions(self) -> NDArray[np.generic]:
        """`(examples, exits)`: class indices, or values for regression."""
        if self.kind == "regression":
            return self.logits[:, :, 0]
        return self.logits.argmax(-1)

    def require_labels(self) -> NDArray[np.generic]:
        """The labels, or an error that says they are missing."""
        if self.labels is None:
            raise DataError("this needs labelled data, but the trace has no labels: trace a labelled split")
        return self.labels

    def parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A header of plain values and the arrays by name, as files keep them; `from_parts` takes them back."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        header = {
            "exit_layers": self.exit_layers,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "truncated": self.truncated,
            "metadata": self.metadata,
        }
        return header, arrays

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, Any]) -> Trace:
        """The trace of which `parts` gave this."""
        return cls(**arrays, **{**header, "exit_layers": tuple(header["exit_layers"])})

    def save(self, path: str | Path) -> None:
        """Write the trace as one compressed `.npz` file."""
        header, arrays = self.parts()
        with open(path, "wb") as file:  # given a name, numpy would add ".npz" to it
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what `save` wrote; no pickled objects are accepted."""
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return cls.from_parts(json.loads(str(arrays.pop("header"))), arrays)
        except FileNotFoundError as error:
            raise DataError(f"no trace at {path}: trace the model first") from error
        except Exception as error:  # zip, zlib, numpy and our own checks each raise their own
            raise DataError(
                f"{path} is not a trace written by offramp ({type(error).__name__}: {error}): "
                "trace the model again"
            ) from error
