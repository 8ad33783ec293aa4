"""Reliability bins and the expected calibration error, by hand."""

import numpy as np
import pytest

from offramp._core.errors import CalibrationError, ConfigError
from offramp.calibration import ece, reliability
from tests.calibration.calibration_traces import classifier, exit_ece


def binary(*confidences):
    """Probabilities of a classifier that always answers 1, so sure."""
    sure = np.array(confidences)
    return np.stack([1 - sure, sure], axis=1)


def test_by_hand():
    # Five bins of 0.2. (.4, .6] has .55 right, .6 wrong: |.5 − .575|; (.8, 1] has .9 and 1 right: |1 − .95|
    table, labels = binary(0.55, 0.6, 0.9, 1.0), [1, 0, 1, 1]
    found = reliability(table, labels, bins=5)
    assert found.edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert found.count.tolist() == [0, 0, 2, 0, 2]
    assert found.confidence[[2, 4]] == pytest.approx([0.575, 0.95])
    assert found.accuracy[[2, 4]] == pytest.approx([0.5, 1.0])
    assert np.isnan(found.accuracy[[0, 1, 3]]).all()
    assert ece(table, labels, bins=5) == pytest.approx((2 * 0.075 + 2 * 0.05) / 4)


def test_a_bin_holds_its_upper_edge():
    assert reliability(binary(0.75, 0.75 + 1e-9), [1, 1], bins=4).count.tolist() == [0, 0, 1, 1]


def test_perfect_and_worst():
    assert ece(binary(1.0, 1.0), [1, 1]) == 0.0
    assert ece(binary(1.0, 1.0), [0, 0]) == 1.0


def test_per_exit():
    trace = classifier(n=100)
    errors = exit_ece(trace, (1.0, 1.0, 1.0, 1e3))
    assert errors[:3] == exit_ece(trace)[:3]
    # At T = 1000 the last exit is sure of nothing: 1/3 against its accuracy.
    accuracy = (trace.predictions()[:, -1] == trace.labels).mean()
    assert errors[3] == pytest.approx(accuracy - 1 / 3, abs=0.002)


def test_refusals():
    with pytest.raises(CalibrationError, match="a label each"):
        ece(binary(0.5, 0.6), [1])
    with pytest.raises(CalibrationError, match="at least one bin"):
        ece(binary(0.5), [1], bins=0)
    with pytest.raises(CalibrationError, match="labels from 0 to 1, got 2"):
        ece(binary(0.5), [2])
    with pytest.raises(ConfigError, match="expected one temperature for each of 4 exits, got 1"):
        exit_ece(classifier(), (1.0,))
