"""What counts as a number, and the one implementation of log-softmax."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray


def is_number(value: object, *, whole: bool = False) -> TypeGuard[float]:
    """Whether a value is a finite real number, or an integer. Numpy's numbers count, a bool does not."""
    kind = Integral if whole else Real
    return not isinstance(value, bool) and isinstance(value, kind) and math.isfinite(value)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-softmax over the last axis in float64, finite for every finite logit; any shape."""
    # scipy's own takes 30 µs for one row, a tenth of a layer of a small model.
    wide: NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis in float64, for any finite logits of any shape."""
    return np.exp(log_softmax(logits))
