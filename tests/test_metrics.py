"""Metrics by hand, where they have no value, and against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.errors import ConfigError, DataError
from offramp.metrics import METRICS, auroc, find_metric, score

every_metric = pytest.mark.parametrize("name", METRICS)


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "value"),
    [
        ("accuracy", [0, 1, 2, 1], [0, 1, 1, 1], 0.75),
        ("f1", [1, 1, 0, 0], [1, 0, 1, 0], 0.5),  # precision ½, recall ½
        ("f1", [1, 1, 1, 0], [1, 1, 0, 0], 0.8),  # precision 1, recall 2/3
        ("macro_f1", [1, 1, 1, 0], [1, 1, 0, 0], (0.8 + 2 / 3) / 2),  # class 0: precision ½, recall 1
        ("matthews", [1, 1, 0, 0], [1, 0, 1, 0], 0.0),
        ("matthews", [1, 1, 1, 0], [1, 1, 0, 0], 1 / 3**0.5),  # (2·1 − 0·1)/√(2·3·1·2)
        ("pearson", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], 3 / (2 * 14 / 3) ** 0.5),
        ("pearson", [1.0, 2.0, 3.0], [6.0, 4.0, 2.0], -1.0),
        ("spearman", [1.0, 2.0, 3.0], [1.0, 10.0, 1000.0], 1.0),
        ("spearman", [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 3.0], 4.5 / (5 * 4.5) ** 0.5),  # ranks 1½ 1½ 3 4
    ],
)
def test_by_hand(name, labels, predictions, value):
    assert score(name, labels, predictions) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "value"),
    [
        ("accuracy", [1, 1], [1, 1], 1.0),
        ("f1", [0, 0, 0], [0, 0, 0], 0.0),  # no positive anywhere
        ("f1", [1, 1, 0], [0, 0, 0], 0.0),  # none predicted
        ("f1", [1, 1, 1], [1, 1, 1], 1.0),
        ("macro_f1", [2, 2], [2, 2], 1.0),
        ("macro_f1", [0, 0], [1, 1], 0.0),
        ("matthews", [1, 1, 1], [1, 1, 1], 0.0),
        ("matthews", [0, 1, 1], [1, 1, 1], 0.0),
        ("matthews", [1, 1, 1], [0, 1, 0], 0.0),
        ("pearson", [1.0, 2.0], [3.0, 3.0], 0.0),
        ("pearson", [1.0], [2.0], 0.0),
        ("spearman", [4.0, 4.0], [1.0, 2.0], 0.0),
        ("spearman", [4.0, 4.0], [1.0, 1.0], 0.0),
    ],
)
def test_where_there_is_no_value_there_is_one_without_a_warning(name, labels, predictions, value):
    assert score(name, labels, predictions) == value


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_values_stay_within_bounds_and_ignore_the_order(pairs):
    labels, predictions = np.array(pairs).T
    for name, metric in METRICS.items():
        value = score(name, labels, predictions)
        low, high = metric.bounds
        assert low <= value <= high
        assert score(name, labels[::-1], predictions[::-1]) == pytest.approx(value)


def test_correlations_are_those_of_scipy():
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(size=(2, 15)).round(1)
        assert score("pearson", a, a + b) == pytest.approx(pearsonr(a, a + b).statistic)
        assert score("spearman", a, a + b) == pytest.approx(spearmanr(a, a + b).statistic)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_correlations_at_any_scale(scale):
    labels, predictions = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    for name in ("pearson", "spearman"):
        assert score(name, labels, predictions * scale) == pytest.approx(0.8)
    nearly = 1.0 + np.array([0, 1, 2, 3]) * 2.0**-50
    assert score("pearson", labels, nearly) == pytest.approx(1.0)


def test_float32_and_class_labels_of_any_integer_type():
    assert score("accuracy", np.array([0, 1], np.int8), np.array([0, 1], np.int64)) == 1.0
    assert score(
        "pearson", np.array([0, 5, 2], np.float32), np.array([0, 5, 2], np.float64)
    ) == pytest.approx(1.0)


@every_metric
def test_every_metric_says_what_its_values_mean(name):
    metric = METRICS[name]
    assert metric.bounds[1] == 1.0
    assert find_metric(name, metric.kind) is metric


@every_metric
def test_refusals(name):
    with pytest.raises(DataError, match=r"labels of shape \(3,\) and predictions of shape \(2,\)"):
        score(name, [0, 1, 1], [0, 1])
    with pytest.raises(DataError, match=r"one prediction per label"):
        score(name, [[0, 1]], [[0, 1]])
    with pytest.raises(DataError, match="got none"):
        score(name, [], [])
    with pytest.raises(DataError, match="finite predictions"):
        score(name, [0.0, 1.0], [0.0, np.nan])
    with pytest.raises(DataError, match="finite labels"):
        score(name, [0.0, np.inf], [0.0, 1.0])


def test_refusals_of_what_does_not_fit():
    with pytest.raises(ConfigError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        score("acuracy", [0], [0])
    with pytest.raises(ConfigError, match=r"'f1' expected labels 0 and 1, got \[0, 1, 2\]: use 'macro_f1'"):
        score("f1", [0, 1, 2], [0, 1, 1])
    with pytest.raises(
        ConfigError, match="'pearson' is for regression, but the task is classification: use 'acc"
    ):
        find_metric("pearson", "classification")


def test_auroc_is_the_share_of_pairs_in_order():
    right = np.array([True, True, False, False])
    assert auroc(right, np.array([0.9, 0.5, 0.5, 0.4])) == pytest.approx(3.5 / 4)
    assert auroc(right, np.array([0.1, 0.2, 0.8, 0.9])) == 0
    assert np.isnan(auroc(np.ones(3, dtype=bool), np.array([0.9, 0.5, 0.7])))
    assert np.isnan(auroc(np.zeros(1, dtype=bool), np.array([0.9])))
