"""One temperature per exit, fitted by maximum likelihood."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace

BOUNDS = (1e-2, 1e4)  # of a temperature; beyond them probabilities are 0 and 1, or uniform, in any case


def fit_temperatures(trace: Trace) -> tuple[float, ...]:
    """Fit the temperature of every exit: the T_i that minimises the NLL of `softmax(z_i / T_i)`.

    A normal prior on log T_i, worth one example, keeps the optimum finite where the likelihood has none: at an exit
    without mistakes (T → 0), at chance (T → ∞), or with one class only. Its effect fades as 1 / examples.

    Args:
        trace: run of the model over the calibration split, labelled; logits `(examples, exits, classes)`.

    Returns:
        One temperature per exit, within `BOUNDS`.

    Raises:
        CalibrationError: for regression, without labels or examples, for labels that are no class of the
            model, or where a logit is not finite.

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
        raise CalibrationError("calibration needs labels, but the trace carries none: trace a labelled split")
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
    # Shifted so that the true class is 0: neither probabilities nor the loss change, and nothing overflows.
    values = values - values[np.arange(len(values)), labels][:, None]
    low, high = np.log(BOUNDS)
    # Logits may have any scale: a coarse grid finds the right decade, from which L-BFGS converges.
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
