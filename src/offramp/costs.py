"""What it costs to leave at each exit: FLOPs as an exact polynomial in the number of tokens.

A transformer's FLOPs on one text of n tokens are `a + b·n + c·n²`: heads and relative-position tables, linear
layers, attention scores. The coefficients are counted on the real modules by torch's own FLOP counter, so a new
architecture needs no formula of its own, and stored with the model, so that costs need no torch afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ModelError

T = TypeVar("T")

PROBE_LENGTHS = (8, 16, 32, 64)  # four lengths for three coefficients: the fourth proves that the form holds


@dataclass(frozen=True)
class CostModel:
    """FLOPs by text length.

    Attributes:
        exits: `(exits, 3)` coefficients of 1, n, n² for leaving at each exit: everything run until then.
        full: `(3,)` the same for the full-depth model with its last head alone.
    """

    exits: NDArray[np.float64]
    full: NDArray[np.float64]

    def __call__(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FLOPs of leaving at each exit `(examples, exits)` and of the full model `(examples,)`."""
        powers = np.asarray(lengths, dtype=np.float64)[:, None] ** np.arange(3)
        return powers @ self.exits.T, powers @ self.full

    def after(self, first: NDArray[np.float64]) -> CostModel:
        """The costs with an exit in front, of coefficients `(3,)`: later exits cost it too."""
        return CostModel(np.vstack([first, self.exits + first]), self.full)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for a config or a manifest."""
        return {"exits": self.exits.tolist(), "full": self.full.tolist()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> CostModel:
        """The inverse of `to_dict`; `ModelError` where it is none."""
        try:
            exits, full = (np.asarray(stored[name], dtype=np.float64) for name in ("exits", "full"))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"expected FLOPs by length as 'exits' and 'full', got {stored!r:.80}") from error
        if exits.ndim != 2 or exits.shape[1] != 3 or full.shape != (3,):
            raise ModelError(
                f"expected FLOPs by length of shapes (exits, 3) and (3,), got {exits.shape} and {full.shape}"
            )
        return cls(exits, full)


def count_flops(run: Callable[[], T]) -> tuple[T, int]:
    """What one call returns, and its FLOPs (a multiply-add counts as two), attention included."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter knows no formula for the CPU's fused attention: the math backend shows it the matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        result = run()
    return result, int(counter.get_total_flops())


def fit_polynomial(measure: Callable[[int], NDArray[np.float64]], longest: int) -> NDArray[np.float64]:
    """Coefficients `(parts, 3)` of 1, n, n² from FLOPs `(parts,)` counted at a few lengths up to `longest`."""
    shrink = min(1.0, longest / PROBE_LENGTHS[-1])
    lengths = [max(1, int(n * shrink)) for n in PROBE_LENGTHS]
    counts = np.stack([measure(n) for n in lengths])
    powers = np.array(lengths, dtype=np.float64)[:, None] ** np.arange(3)
    coefficients, *_ = np.linalg.lstsq(powers, counts, rcond=None)
    error = np.abs(powers @ coefficients - counts).max() / counts.max()
    if error > 0.01:
        raise ModelError(
            f"the FLOPs of this architecture are no quadratic in the text length (off by {error:.0%}): "
            "it cannot be costed, please report it"
        )
    return np.round(coefficients.T, 3)
