from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError, DataError
from offramp.evaluation.weighted import WEIGHTED, weighted_auroc, weighted_ranks, weighted_score
from offramp.metrics import METRICS, auroc, score


def slow_twin(metric, labels, predictions, weights):
    """Repeat every example as often as it counts, and score the rows."""
    rows = [np.repeat(np.arange(len(labels)), counts.astype(int)) for counts in weights]
    return np.array([[score(metric, labels[r], column[r]) for column in predictions.T] for r in rows])


def test_every_metric_has_a_fast_form() -> None:
    assert set(WEIGHTED) == set(METRICS)


@settings(max_examples=25, deadline=None)
@given(
    metric=st.sampled_from(sorted(METRICS)),
    examples=st.integers(1, 12),
    classes=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_weighted_scores_equal_scores_of_repeated_rows(metric, examples, classes, seed) -> None:
    random = np.random.default_rng(seed)
    classes = min(classes, 2) if metric == "f1" else classes
    labels = random.integers(classes, size=examples)
    predictions = random.integers(classes, size=(examples, 3))
    if METRICS[metric].kind == "regression":  # halves make ties
        labels, predictions = labels / 2, predictions / 2 + random.integers(2, size=(examples, 3))
    weights = random.multinomial(examples, np.full(examples, 1 / examples), size=4).astype(float)
    fast = weighted_score(metric, labels, predictions, weights)
    assert fast == pytest.approx(slow_twin(metric, labels, predictions, weights), abs=1e-9)


def test_correlation_of_a_side_that_is_constant_in_a_resample_is_zero() -> None:
    labels = np.array([0.1, 0.1, 0.7])
    weights = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    for metric in ("pearson", "spearman"):
        found = weighted_score(metric, labels, labels[:, None], weights)
        assert found[:, 0] == pytest.approx([0.0, 1.0])


@settings(max_examples=25, deadline=None)
@given(examples=st.integers(1, 12), values=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_weighted_auroc_equals_that_of_repeated_rows(examples, values, seed) -> None:
    random = np.random.default_rng(seed)
    right = random.integers(2, size=(examples, 3)).astype(bool)
    confidence = random.integers(values, size=(examples, 3)) / 2
    weights = random.multinomial(examples, np.full(examples, 1 / examples), size=4).astype(float)
    rows = [np.repeat(np.arange(examples), counts.astype(int)) for counts in weights]
    slow = [[auroc(right[r, k], confidence[r, k]) for k in range(3)] for r in rows]
    np.testing.assert_allclose(weighted_auroc(right, confidence, weights), slow, atol=1e-9)


def test_weighted_ranks_by_hand() -> None:
    # 3 1 1 with weights 1 2 1: sorted 1 1 1 3, ranks 2 2 2 4. Without the 3: 1 1 1, ranks 2 2 2.
    ranks = weighted_ranks(np.array([3, 1, 1]), np.array([[1.0, 2.0, 1.0], [0.0, 2.0, 1.0]]))
    assert ranks[0].tolist() == [4, 2, 2]
    assert ranks[1, 1:].tolist() == [2, 2]


def test_weighted_accuracy_by_hand() -> None:
    labels, predictions = np.array([0, 1, 1]), np.array([[0, 1], [1, 1], [0, 1]])
    weights = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
    expected = weighted_score("accuracy", labels, predictions, weights)
    assert expected.tolist() == [[2 / 3, 2 / 3], [1, 1], [2 / 3, 1 / 3]]


def test_what_cannot_be_scored_is_refused() -> None:
    labels, ones = np.array([0.0, 1.0]), np.ones((1, 2))
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        weighted_score("acuracy", labels, labels[:, None], ones)
    with pytest.raises(DataError, match="finite predictions for 'pearson'"):
        weighted_score("pearson", labels, np.array([[0.0, 1.0], [1.0, np.nan]]), ones)
