"""How well calibrated an exit is: reliability diagrams and the expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import CalibrationError
from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.calibration.temperatures import class_labels


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: equal-width bins of confidence. All but `edges` are `(bins,)`.

    Attributes:
        edges: `(bins + 1,)` from 0 to 1; a bin holds its upper edge, the first its lower one too.
        count: examples in the bin.
        confidence: their mean confidence; NaN where there are none.
        accuracy: share of them that is right; NaN where there are none.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """Compare how sure the predictions are with how often they are right.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` class indices.
        bins: number of bins of equal width.

    Returns:
        The bins.

    Raises:
        CalibrationError: where there is no bin, no example, or the shapes do not fit.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    truth = class_labels(labels, table.shape[-1])
    if table.ndim != 2 or len(table) != len(truth) or not len(table) or bins < 1:
        raise CalibrationError(
            f"expected probabilities (examples, classes), a label each and at least one bin, got shape "
            f"{table.shape}, {len(truth)} labels and {bins} bins"
        )
    sure, right = table.max(axis=1), table.argmax(axis=1) == truth
    edges = np.linspace(0.0, 1.0, bins + 1)
    bin_index = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    share = np.where(count, count, np.nan)
    return Reliability(
        edges,
        count,
        np.bincount(bin_index, sure, bins) / share,
        np.bincount(bin_index, right.astype(np.float64), bins) / share,
    )


def ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, weighted by the bins' counts.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` class indices.
        bins: number of bins of equal width.

    Returns:
        The error, in [0, 1].

    Raises:
        CalibrationError: as `reliability`.

    Source: Guo et al. 2017, equation 3.
    """
    diagram = reliability(probabilities, labels, bins)
    gaps = np.nan_to_num(np.abs(diagram.confidence - diagram.accuracy))
    return float((gaps * diagram.count).sum() / diagram.count.sum())


def exit_ece(
    trace: Trace, temperatures: tuple[float, ...] | None = None, bins: int = 15
) -> tuple[float, ...]:
    """Expected calibration error of every exit of a trace.

    Args:
        trace: labelled run of a classifier.
        temperatures: one per exit; None means 1 everywhere.
        bins: number of bins of equal width.

    Returns:
        One error per exit.

    Raises:
        CalibrationError: for regression, without labels, or with the wrong number of temperatures.
    """
    if trace.kind == "regression":
        raise CalibrationError("calibration error needs class probabilities, but the task is regression")
    divisors = (1.0,) * trace.exits if temperatures is None else temperatures
    if len(divisors) != trace.exits:
        raise CalibrationError(f"expected {trace.exits} temperatures, one per exit, got {len(divisors)}")
    labels = class_labels(trace.labels, trace.logits.shape[2])
    scaled = trace.logits.astype(np.float64) / np.asarray(divisors)[None, :, None]
    return tuple(ece(softmax(scaled[:, exit]), labels, bins) for exit in range(trace.exits))
