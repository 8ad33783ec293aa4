"""Reading one exit's evidence: checked for NaN, in float64, the same for every number format."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CriterionError
from offramp._core.numbers import log_softmax
from offramp._core.trace import Evidence


def finite(values: NDArray[np.floating], what: str, exit: int) -> NDArray[np.float64]:
    """The values in float64, or an error that names the exit.

    NaN compares false with every threshold, so a broken exit would silently become "do not leave".

    Raises:
        CriterionError: where a value is NaN or infinite.
    """
    wide: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    good = np.isfinite(wide)
    if not good.all():
        bad = ~good
        rows = int(bad.reshape(len(bad), -1).any(axis=1).sum())
        raise CriterionError(
            f"expected finite {what}, got NaN or infinity at exit {exit + 1} (counted from 1) in {rows} of "
            f"{len(wide)} examples: check that exit's weights, or run the model in float32"
        )
    return wide


def finite_logits(evidence: Evidence) -> NDArray[np.float64]:
    """Logits `(batch, classes)` in float64."""
    return finite(evidence.logits, "logits", evidence.exit)


def log_probabilities(evidence: Evidence) -> NDArray[np.float64]:
    """Log-probabilities `(batch, classes)` in float64, finite for every finite logit.

    Raises:
        CriterionError: where a logit is not finite, or there is one column only (a regression head).
    """
    logits = finite_logits(evidence)
    if logits.shape[1] < 2:
        raise CriterionError(
            f"expected logits of at least two classes, got {logits.shape[1]} at exit {evidence.exit + 1}: "
            "a regression head has no probabilities, use 'patience'"
        )
    return log_softmax(logits)


def confidence(evidence: Evidence) -> NDArray[np.float64]:
    """Largest probability `(batch,)`, in [1/K, 1]."""
    return np.exp(log_probabilities(evidence).max(axis=1))


def answer(evidence: Evidence) -> NDArray[Any]:
    """What the exit answers `(batch,)`: the class index, or the value where the logits have one column."""
    logits = finite_logits(evidence)
    return logits[:, 0] if logits.shape[1] == 1 else logits.argmax(axis=1)
