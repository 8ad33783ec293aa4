"""Scores of many predictions under many weightings at once, for curves and the bootstrap.

`offramp.metrics.score` is the slow and obvious twin: an example of weight k counts as k rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp.metrics import score

Table = NDArray[np.float64]
Scores = Callable[[NDArray[Any], NDArray[Any], Table], Table]


def weighted_score(metric: str, labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    """Scores `(resamples, columns)` of columns of predictions under several weightings of the examples.

    Args:
        metric: a key of `WEIGHTED`.
        labels: `(examples,)`.
        predictions: `(examples, columns)`.
        weights: `(resamples, examples)`, whole numbers: how often each example counts.

    Raises:
        ConfigError: the metric is unknown.
        DataError: labels or predictions are missing or not finite.
    """
    score(metric, labels, predictions[:, 0])  # for its checks
    if not np.isfinite(predictions).all():
        raise DataError(
            f"expected finite predictions for {metric!r}, got NaN or infinity: check the model's weights"
        )
    return WEIGHTED[metric](labels, predictions, weights)


def ratio(above: Table, below: Table) -> Table:
    """`above / below`, and 0 where below is 0, the value of an undefined metric."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


def _accuracy(labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    right = (predictions == labels[:, None]).astype(np.float64)
    return weights @ right / weights.sum(axis=1, keepdims=True)


def _counts(
    labels: NDArray[Any], predictions: NDArray[Any], weights: Table, value: object
) -> tuple[Table, Table, Table]:
    """Weight of the class being right, predicted `(resamples, columns)`, and true `(resamples, 1)`."""
    true, predicted = labels == value, predictions == value
    hit = weights @ (predicted & true[:, None]).astype(np.float64)
    return hit, weights @ predicted.astype(np.float64), weights @ true[:, None].astype(np.float64)


def _f1(labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    hit, predicted, true = _counts(labels, predictions, weights, 1)
    return ratio(2 * hit, predicted + true)


def _macro_f1(labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    total = np.zeros((len(weights), predictions.shape[1]))
    present = np.zeros_like(total)
    for value in np.union1d(labels, predictions):
        hit, predicted, true = _counts(labels, predictions, weights, value)
        total += ratio(2 * hit, predicted + true)
        present += predicted + true > 0
    return ratio(total, present)


def _matthews(labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    # Gorodkin 2004: (c·s − Σ p_k t_k) / sqrt((s² − Σ p_k²)(s² − Σ t_k²)), all counts.
    size = weights.sum(axis=1, keepdims=True)
    right = weights @ (predictions == labels[:, None]).astype(np.float64)
    both, pp, tt = np.zeros_like(right), np.zeros_like(right), np.zeros_like(size)
    for value in np.union1d(labels, predictions):
        _, predicted, true = _counts(labels, predictions, weights, value)
        both += predicted * true
        pp += predicted**2
        tt += true**2
    return ratio(right * size - both, np.sqrt(np.maximum((size**2 - pp) * (size**2 - tt), 0)))


def _pearson(labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    x = _standard(np.asarray(labels, dtype=np.float64)[:, None])
    y = _standard(np.asarray(predictions, dtype=np.float64))
    size = weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = weights @ x / size, weights @ y / size
    covariance = weights @ (x * y) / size - mean_x * mean_y
    var_x, var_y = weights @ x**2 / size - mean_x**2, weights @ y**2 / size - mean_y**2
    # Cancellation leaves noise of about 1e-16 where a side is constant in a resample: a correlation of 0.
    varied = (var_x > 1e-12) & (var_y > 1e-12)
    return np.clip(ratio(covariance, np.sqrt(np.where(varied, var_x * var_y, 0.0))), -1.0, 1.0)


def _standard(columns: Table) -> Table:
    centred = columns - columns.mean(axis=0)
    return ratio(centred, np.broadcast_to(centred.std(axis=0), centred.shape))


def _spearman(labels: NDArray[Any], predictions: NDArray[Any], weights: Table) -> Table:
    """Pearson correlation of ranks, ranked in every resample."""
    mean = (weights.sum(axis=1, keepdims=True) + 1) / 2  # of all ranks
    x = weighted_ranks(labels, weights) - mean
    correlations = []
    for column in predictions.T:
        y = weighted_ranks(column, weights) - mean
        norms = (weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1)
        correlations.append(ratio((weights * x * y).sum(axis=1), np.sqrt(norms)))
    return np.clip(np.stack(correlations, axis=1), -1.0, 1.0)


def weighted_ranks(values: NDArray[Any], weights: Table) -> Table:
    """Mean ranks `(resamples, examples)` that values `(examples,)` have when each counts `weights` times."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.add.reduceat(weights[:, order], starts, axis=1)  # weight of each group of ties
    last = np.cumsum(size, axis=1)
    return (last - (size - 1) / 2)[:, group]


def weighted_auroc(right: NDArray[np.bool_], confidence: Table, weights: Table) -> Table:
    """`offramp.metrics.auroc` of columns `(examples, columns)` under several weightings: `(resamples, columns)`.

    It is the rank-sum statistic of the right answers; NaN where a resample has no right or no wrong answer.
    """
    areas = []
    for hits, values in zip(right.T, confidence.T, strict=True):
        hit = weights[:, hits].sum(axis=1)
        pairs = hit * (weights.sum(axis=1) - hit)
        ranks = (weights * weighted_ranks(values, weights))[:, hits].sum(axis=1)
        above = ranks - hit * (hit + 1) / 2
        areas.append(np.divide(above, pairs, out=np.full_like(above, np.nan), where=pairs > 0))
    return np.stack(areas, axis=1)


WEIGHTED: dict[str, Scores] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
