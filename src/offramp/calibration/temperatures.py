"""Temperatures fitted by maximum likelihood, and the calibration error of an exit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace

BOUNDS = (1e-2, 1e4)  # of a temperature; beyond them probabilities are 0 and 1, or uniform


def fit_temperatures(trace: Trace) -> tuple[float, ...]:
    """Fit the temperature of every exit: the T_i that minimises the NLL of `softmax(z_i / T_i)`.

    A normal prior on log T_i, worth one example, keeps the optimum finite if the likelihood has none: at an exit
    without mistakes (T → 0), at chance (T → ∞), or with one class only. Its effect fades as 1 / examples.

    Args:
        trace: labelled run of the model over the calibration split.

    Returns:
        One temperature per exit, within `BOUNDS`.

    Raises:
        CalibrationError: regression, no labels or examples, labels that are not classes of the model, or a logit that
            is not finite.

    Source: Guo et al. 2017 (On Calibration of Modern Neural Networks), section 4.2; per exit as in SWEET.
    """
    if trace.kind == "regression":
        raise CalibrationError(
            "temperatures need class probabilities, but the task is regression: leave them out"
        )
    labels = class_labels(trace.labels, trace.logits.shape[2])
    if len(labels) != len(trace) or not len(trace):
        raise CalibrationError(f"expected one label per example, got {len(labels)} for {len(trace)} examples")
    return tuple(fit_temperature(trace.logits[:, exit], labels, exit) for exit in range(trace.exits))


def class_labels(labels: ArrayLike | None, classes: int) -> NDArray[np.int64]:
    """The labels as class indices, checked."""
    if labels is None:
        raise CalibrationError("calibration needs labels, but the trace has none: trace a labelled split")
    indices: NDArray[np.int64] = np.asarray(labels).astype(np.int64)
    if len(indices) and (indices.min() < 0 or indices.max() >= classes):
        raise CalibrationError(
            f"expected labels from 0 to {classes - 1}, got {indices.min()} to {indices.max()}: "
            "the data has other classes than the model"
        )
    return indices


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64], exit: int = 0) -> float:
    """Fit one temperature on logits `(examples, classes)`; `exit` (0-based) is for the error message."""
    from scipy.optimize import minimize

    values = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(values).all():
        raise CalibrationError(
            f"expected finite logits, got NaN or infinity at exit {exit + 1} (counted from 1): "
            "check that exit's weights"
        )
    # Shifted: the true class is 0. Probabilities and loss stay the same, and nothing overflows.
    values = values - values[np.arange(len(values)), labels][:, None]
    low, high = np.log(BOUNDS)
    # Logits may have any scale: a coarse grid finds the right decade, then L-BFGS converges.
    start = min(np.linspace(low, high, 29), key=lambda point: loss(np.array([point]), values)[0])
    result = minimize(loss, [start], (values,), method="L-BFGS-B", jac=True, bounds=[(low, high)])
    return float(np.clip(np.exp(result.x[0]), *BOUNDS))


def loss(
    log_temperature: NDArray[np.float64], logits: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Penalised mean NLL, and its derivative by log T; the true class has logit 0."""
    from scipy.special import logsumexp

    scaled = logits * np.exp(-log_temperature)
    total = logsumexp(scaled, axis=1)
    expected = (np.exp(scaled - total[:, None]) * scaled).sum(axis=1)
    prior = log_temperature[0] / len(logits)
    return float(total.mean() + prior * log_temperature[0] / 2), np.array([prior - expected.mean()])


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: equal-width bins of confidence. All arrays except `edges` are `(bins,)`.

    Attributes:
        edges: `(bins + 1,)` from 0 to 1; a bin includes its upper edge, and the first bin its lower edge too.
        count: examples in the bin.
        confidence: their mean confidence; NaN for an empty bin.
        accuracy: share of right examples; NaN for an empty bin.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Reliability:
    """Compare the confidence of predictions with their accuracy.

    Args:
        probabilities: `(examples, classes)`.
        labels: `(examples,)` class indices.
        bins: number of bins of equal width.

    Raises:
        CalibrationError: no bin, no example, or shapes that do not match.
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
    """Expected calibration error in [0, 1]: mean gap between confidence and accuracy, weighted by the bins' counts.

    Arguments and errors are those of `reliability`.

    Source: Guo et al. 2017, equation 3.
    """
    diagram = reliability(probabilities, labels, bins)
    gaps = np.nan_to_num(np.abs(diagram.confidence - diagram.accuracy))
    return float((gaps * diagram.count).sum() / diagram.count.sum())
