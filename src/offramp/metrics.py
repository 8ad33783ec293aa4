"""Task metrics by name. Higher is better for every one of them.

Undefined metrics have a value, without a warning: a correlation (Matthews, Pearson, Spearman) with a constant side
is 0, the value of a constant answer; F1 without true or predicted positives is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import ConfigError, DataError, unknown_name
from offramp._core.trace import Kind

Labels = NDArray[np.generic]


def accuracy(labels: Labels, predictions: Labels) -> float:
    """Share of predictions that are right."""
    return float(np.mean(labels == predictions))


def f1(labels: Labels, predictions: Labels) -> float:
    """F1 of the positive class, label 1, of a task with labels 0 and 1 (the GLUE convention)."""
    from sklearn.metrics import f1_score

    classes = np.union1d(labels, predictions)
    if not np.isin(classes, (0, 1)).all():
        raise ConfigError(f"'f1' expected labels 0 and 1, got {classes[:5].tolist()}: use 'macro_f1'")
    return float(f1_score(labels, predictions, pos_label=1, zero_division=0.0))


def macro_f1(labels: Labels, predictions: Labels) -> float:
    """Mean of the F1 of every class that occurs among the labels or the predictions."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews(labels: Labels, predictions: Labels) -> float:
    """Matthews correlation, for any number of classes."""
    from sklearn.metrics import matthews_corrcoef

    if constant(labels) or constant(predictions):
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def pearson(labels: Labels, predictions: Labels) -> float:
    """Pearson correlation."""
    if constant(labels) or constant(predictions):
        return 0.0
    rows: NDArray[np.float64] = np.stack([labels, predictions]).astype(np.float64)
    # The scale does not matter. Scaling first keeps squares of tiny or huge values from vanishing or overflowing.
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1)
    return float(np.clip(rows[0] @ rows[1] / norms.prod(), -1.0, 1.0))


def spearman(labels: Labels, predictions: Labels) -> float:
    """Spearman rank correlation; ties share their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(labels), rankdata(predictions))


def auroc(right: NDArray[np.bool_], confidence: NDArray[np.floating]) -> float:
    """How well confidence ranks right answers above wrong ones: the area under the ROC curve of "right".

    Args:
        right: `(examples,)`, whether each answer is right.
        confidence: `(examples,)`, finite.

    Returns:
        The share of pairs of a right and a wrong answer in which the right one has more confidence, ties counted half;
        NaN if all answers are right, or all wrong.

    Source: Kubaty et al. 2025 (arXiv 2508.21495), failure prediction.
    """
    from sklearn.metrics import roc_auc_score

    return float("nan") if constant(right) else float(roc_auc_score(right, confidence))


def constant(values: Labels) -> bool:
    """Whether all values are the same."""
    return bool((values == values[0]).all())


@dataclass(frozen=True)
class Metric:
    """A metric with the meaning of its values.

    Attributes:
        function: `(labels, predictions) -> value`.
        bounds: smallest and largest value it can take.
    """

    function: Callable[[Labels, Labels], float]
    kind: Kind
    bounds: tuple[float, float]


METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, "classification", (0.0, 1.0)),
    "f1": Metric(f1, "classification", (0.0, 1.0)),
    "macro_f1": Metric(macro_f1, "classification", (0.0, 1.0)),
    "matthews": Metric(matthews, "classification", (-1.0, 1.0)),
    "pearson": Metric(pearson, "regression", (-1.0, 1.0)),
    "spearman": Metric(spearman, "regression", (-1.0, 1.0)),
}


def find_metric(name: str, kind: Kind | None = None) -> Metric:
    """The metric of that name; `ConfigError` where it is unknown, or for another kind of task than `kind`."""
    if name not in METRICS:
        raise ConfigError(unknown_name("metric", name, METRICS))
    metric = METRICS[name]
    if kind is not None and metric.kind != kind:
        fitting = ", ".join(repr(n) for n, m in METRICS.items() if m.kind == kind)
        raise ConfigError(f"metric {name!r} is for {metric.kind}, but the task is {kind}: use {fitting}")
    return metric


def score(metric: str, labels: ArrayLike, predictions: ArrayLike) -> float:
    """Value of a metric of `METRICS`, within its bounds; never NaN.

    Args:
        labels: `(examples,)` true class indices, or values for regression.
        predictions: `(examples,)`, as the labels.

    Raises:
        ConfigError: the metric is unknown.
        DataError: the lengths differ, there are no examples, or a value is not finite.
    """
    function = find_metric(metric).function
    truth, answers = np.asarray(labels), np.asarray(predictions)
    if truth.ndim != 1 or truth.shape != answers.shape:
        raise DataError(
            f"expected one prediction per label, got labels of shape {truth.shape} and predictions of shape "
            f"{answers.shape}: pass both for the same examples"
        )
    if not len(truth):
        raise DataError(f"expected examples to compute {metric!r} on, got none")
    for what, values in (("labels", truth), ("predictions", answers)):
        if not np.isfinite(values).all():
            raise DataError(f"expected finite {what} for {metric!r}, got NaN or infinity")
    return function(truth, answers)
