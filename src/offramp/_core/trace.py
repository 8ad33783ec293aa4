"""The trace: the output of every exit for every example. All analysis works on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.damaged_files import file_problem
from offramp._core.errors import ConfigError, DataError
from offramp._core.files import atomic_write
from offramp._core.paths import UserPath, user_path

Kind = Literal["classification", "regression"]

# Names of arrays in saved traces, where they differ from the fields here.
STORED_NAMES = {"flops": "costs", "full_flops": "full_cost"}


@dataclass(frozen=True)
class Evidence:
    """The output of one exit for a batch: everything that an exit criterion may use.

    Attributes:
        exit: index of the exit, 0-based.
        exits: number of exits E.
        logits: `(batch, classes)` float32; one column for regression.
        gate: `(batch,)` learned-gate probability of being right, or None if the model has no gates.
        label: `(batch,)` true labels, for the oracle only.
        residual: `(batch,)` share in [0, 1] of the exit's features that its classifier does not read (see
            `offramp.model.class_space`), or None where it was not computed.
        layer_zero: whether the exit is the stage before the first layer.
    """

    exit: int
    exits: int
    logits: NDArray[np.floating]
    gate: NDArray[np.floating] | None = None
    label: NDArray[np.generic] | None = None
    residual: NDArray[np.floating] | None = None
    layer_zero: bool = False

    @property
    def silent(self) -> NDArray[np.bool_] | None:
        """The texts `(batch,)` of which layer 0 recognises nothing: their logits are all 0. None at other exits."""
        return np.asarray(~self.logits.any(axis=1)) if self.layer_zero else None

    def scaled(self, temperatures: Sequence[float] | None) -> Evidence:
        """The evidence with its logits divided by the temperature of this exit, in float64; None changes nothing."""
        if temperatures is None:
            return self
        return replace(self, logits=divide_logits(self.logits, temperatures[self.exit]))


@dataclass(frozen=True)
class Trace:
    """One full run of a model over a data set.

    Attributes:
        logits: `(examples, exits, classes)` float32; all 0 at layer 0 for a text of which it recognises nothing.
        exit_layers: backbone layer of each exit, counted from 1, increasing.
        flops: `(examples, exits)` FLOPs spent on an example that leaves at each exit. Heads are counted, and
            for a Multi-Model cascade the recomputation too.
        full_flops: `(examples,)` FLOPs of the full-depth model with only its last head.
        labels: `(examples,)` int64 classes or float32 targets, or None.
        gates: `(examples, exits)` learned-gate probabilities in [0, 1], or None.
        kind: classification or regression (`classes` is then 1).
        fingerprint: identifies the data, to keep calibration data out of reports.
        truncated: number of examples cut to the maximum length.
        residuals: `(examples, exits)` shares as in `Evidence.residual`, or None; old traces have none.
    """

    logits: NDArray[np.floating]
    exit_layers: tuple[int, ...]
    flops: NDArray[np.float64]
    full_flops: NDArray[np.float64]
    labels: NDArray[np.generic] | None = None
    gates: NDArray[np.float32] | None = None
    kind: Kind = "classification"
    fingerprint: str = ""
    truncated: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    residuals: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        n, e = self.logits.shape[:2]
        assert self.logits.ndim == 3, self.logits.shape
        assert len(self.exit_layers) == e, (self.exit_layers, e)
        assert self.flops.shape == (n, e), (self.flops.shape, n, e)
        assert self.full_flops.shape == (n,), self.full_flops.shape

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
            flops=self.flops[rows],
            full_flops=self.full_flops[rows],
            labels=None if self.labels is None else self.labels[rows],
            gates=None if self.gates is None else self.gates[rows],
            residuals=None if self.residuals is None else self.residuals[rows],
        )

    def scaled(self, temperatures: Sequence[float] | None) -> Trace:
        """The trace with the logits of every exit divided by its temperature.

        Args:
            temperatures: one per exit; None returns the trace unchanged.

        Returns:
            A trace with float64 logits: the largest float32 logits over a temperature below 1 would overflow.

        Raises:
            ConfigError: unless there is one temperature per exit.
        """
        if temperatures is None:
            return self
        if len(temperatures) != self.exits:
            raise ConfigError(
                f"expected one temperature for each of {self.exits} exits, got {len(temperatures)}: "
                "fit them on a trace of this model"
            )
        return replace(self, logits=divide_logits(self.logits, np.asarray(temperatures)[:, None]))

    def evidence(self, exit: int) -> Evidence:
        """The output of exit `exit` (0-based) for all examples."""
        gate = None if self.gates is None else self.gates[:, exit]
        residual = None if self.residuals is None else self.residuals[:, exit]
        return Evidence(
            exit,
            self.exits,
            self.logits[:, exit],
            gate,
            self.labels,
            residual,
            layer_zero=self.exit_layers[exit] == 0,
        )

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
        """A header of plain values, and the arrays under their names in files; `from_parts` is the inverse."""
        fields = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        arrays = {STORED_NAMES.get(name, name): array for name, array in fields.items()}
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
        """The trace of a header and arrays as `parts` returns them."""
        names = {stored: name for name, stored in STORED_NAMES.items()}
        fields = {names.get(stored, stored): array for stored, array in arrays.items()}
        return cls(**fields, **{**header, "exit_layers": tuple(header["exit_layers"])})

    def save(self, path: UserPath) -> None:
        """Write the trace as one compressed `.npz` file, whole or not at all."""
        header, arrays = self.parts()
        # Given a name instead of a file, numpy would add ".npz" to it.
        with atomic_write(path) as draft, open(draft, "wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)

    @classmethod
    def load(cls, path: UserPath) -> Trace:
        """Read what `save` wrote; no pickled objects are accepted."""
        path = user_path(path)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return cls.from_parts(json.loads(str(arrays.pop("header"))), arrays)
        except FileNotFoundError as error:
            raise DataError(f"no trace at {path}: trace the model first") from error
        except Exception as error:  # zip, zlib, numpy and our own checks each have their own errors
            raise DataError(
                f"{path} is not a trace written by offramp, since it {file_problem(user_path(path), error)}: trace the "
                "model again"
            ) from error


def divide_logits(
    logits: NDArray[np.floating], temperatures: float | NDArray[np.floating]
) -> NDArray[np.float64]:
    """Logits divided by temperatures of a shape that broadcasts, in float64."""
    return np.asarray(logits, dtype=np.float64) / np.asarray(temperatures, dtype=np.float64)
