"""Temperatures are recovered, and stay finite where the likelihood has no optimum."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace
from offramp.calibration import fit_temperatures
from offramp.calibration.temperatures import BOUNDS, fit_temperature, loss
from tests.calibration.calibration_traces import classifier, exit_ece, regressor


def trace_of(logits, labels):
    n, exits, _ = logits.shape
    costs = np.ones((n, exits))
    return Trace(np.asarray(logits, np.float32), tuple(range(1, exits + 1)), costs, costs[:, 0], labels)


def calibrated(rng, n, classes=4, scale=2.0):
    """Logits that are right about their own uncertainty: labels are drawn from their softmax."""
    logits = rng.normal(size=(n, classes)) * scale
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def nll(logits, labels, temperature):
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


def test_overconfident_and_underconfident_exits_get_their_temperature_back():
    true = (0.2, 1.0, 3.0, 50.0)
    logits, labels = calibrated(np.random.default_rng(0), 6000)
    trace = trace_of(np.stack([logits * t for t in true], axis=1), labels)
    fitted = fit_temperatures(trace)
    assert fitted == pytest.approx(true, rel=0.06)
    before, after = exit_ece(trace), exit_ece(trace, fitted)
    assert max(after) < 0.03
    assert min(before[0], before[2], before[3]) > 0.1


def test_the_fit_is_the_minimum_of_the_likelihood():
    rng = np.random.default_rng(1)
    logits, labels = calibrated(rng, 3000)
    tried = np.geomspace(0.1, 10, 2001)
    best = tried[np.argmin([nll(logits * 2.5, labels, t) for t in tried])]
    assert fit_temperature(logits * 2.5, labels) == pytest.approx(best, rel=0.005)


def test_the_gradient_is_that_of_the_loss():
    logits, labels = calibrated(np.random.default_rng(2), 50)
    logits = logits - logits[np.arange(50), labels][:, None]
    for point in (-2.0, 0.0, 1.5):
        slope = loss(np.array([point]), logits)[1][0]
        ahead, behind = (loss(np.array([point + h]), logits)[0] for h in (1e-5, -1e-5))
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_an_exit_without_a_mistake_keeps_a_finite_temperature(scale):
    labels = np.arange(200) % 3
    logits = np.eye(3)[labels] * 4.0 * scale + np.random.default_rng(0).normal(size=(200, 3)) * scale * 0.1
    assert (logits.argmax(axis=1) == labels).all()
    temperature = fit_temperature(logits, labels)
    assert BOUNDS[0] < temperature < BOUNDS[1]
    confidence = np.exp(log_softmax(logits / temperature, axis=1).max(axis=1))
    assert (confidence < 1.0).any()  # not all saturated, so thresholds can still tell examples apart


def test_an_exit_at_chance_becomes_unsure():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2000, 4)) * 5, rng.integers(0, 4, 2000)
    temperature = fit_temperature(logits, labels)
    assert np.isfinite(temperature)
    assert np.exp(log_softmax(logits / temperature, axis=1)).max() < 0.6


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only(label):
    logits = np.random.default_rng(0).normal(size=(300, 2)) + np.array([2.0, 0.0])
    temperature = fit_temperature(logits, np.full(300, label))
    assert BOUNDS[0] <= temperature <= BOUNDS[1]


@pytest.mark.parametrize("top", [0.0, 1e-30, 1e4, 65504.0, 3.4e38])
def test_extreme_logits_give_a_finite_temperature(top):
    logits = np.zeros((40, 3))
    logits[:20, 0], logits[20:, 2] = top, -top
    assert BOUNDS[0] <= fit_temperature(logits, np.arange(40) % 3) <= BOUNDS[1]


def test_the_order_of_the_examples_does_not_matter():
    trace = classifier(n=200)
    shuffled = trace.take(np.random.default_rng(0).permutation(200))
    assert fit_temperatures(shuffled) == pytest.approx(fit_temperatures(trace), rel=1e-4)


def test_refusals():
    trace = classifier(n=40)
    with pytest.raises(CalibrationError, match="the task is regression"):
        fit_temperatures(regressor())
    with pytest.raises(CalibrationError, match="has none: trace a labelled split"):
        fit_temperatures(replace(trace, labels=None))
    with pytest.raises(CalibrationError, match="labels from 0 to 2, got 0 to 3"):
        fit_temperatures(replace(trace, labels=np.arange(40) % 4))
    with pytest.raises(CalibrationError, match="labels from 0 to 2, got -1 to"):
        fit_temperatures(replace(trace, labels=trace.labels - 1))
    with pytest.raises(CalibrationError, match="got 0 for 0 examples"):
        fit_temperatures(trace.take(slice(0, 0)))
    trace.logits[3, 1, 0] = np.nan
    with pytest.raises(CalibrationError, match="NaN or infinity at exit 2"):
        fit_temperatures(trace)
