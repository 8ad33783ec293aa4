"""Made-up classifiers and regressors whose later exits are better."""

import numpy as np

from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.calibration import ece


def classifier(seed=0, n=60, exits=4, classes=3, cascade=False, labels=None):
    """Logits that favour the true class more with every exit; costs by example, for a cascade adding up."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, n) if labels is None else labels
    signal = np.eye(classes)[truth][:, None, :] * np.linspace(0.5, 2.5, exits)[None, :, None]
    logits = (signal + rng.normal(size=(n, exits, classes))).astype(np.float32)
    costs = np.arange(1.0, exits + 1)[None] * rng.uniform(1.0, 3.0, (n, 1))
    gates = rng.uniform(0.2, 0.9, (n, exits)).astype(np.float32)
    layers = tuple(2 * i + 1 for i in range(exits))
    full = costs[:, -1].copy()
    spent = costs.cumsum(axis=1) if cascade else costs
    residuals = rng.uniform(0.0, 1.0, (n, exits)).astype(np.float32)
    return Trace(
        logits,
        layers,
        spent,
        full,
        truth.astype(np.int64),
        gates,
        "classification",
        "calibration data",
        residuals=residuals,
    )


def regressor(seed=0, n=60, exits=4):
    """Values nearer to the target with every exit."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 5, n)
    noise = rng.normal(size=(n, exits)) * np.linspace(1.0, 0.1, exits)
    logits = (truth[:, None] + noise)[:, :, None].astype(np.float32)
    costs = np.tile(np.arange(1.0, exits + 1), (n, 1))
    labels = truth.astype(np.float32)
    return Trace(logits, tuple(range(1, exits + 1)), costs, costs[:, -1], labels, None, "regression", "stsb")


def exit_ece(trace, temperatures=None):
    """Expected calibration error of every exit of a labelled trace, at one temperature per exit."""
    logits = trace.scaled(temperatures).logits
    return tuple(ece(softmax(logits[:, exit]), trace.labels) for exit in range(trace.exits))
