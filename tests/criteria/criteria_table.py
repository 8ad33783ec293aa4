"""One row per exit rule, shared by the tests that hold for all of them."""

from dataclasses import dataclass

import numpy as np

from offramp._core.trace import Trace
from offramp.criteria import Criterion, make_criterion

EXITS = 4


@dataclass(frozen=True)
class Row:
    """A rule with options other than the defaults, thresholds from lax to strict, and the kind of task."""

    rule: Criterion
    thresholds: tuple[float, ...]
    kind: str = "classification"


ROWS = {
    "confidence": Row(make_criterion("confidence", 0.6), (0.0, 0.3, 0.5, 0.7, 0.9, 1.0, 2.0)),
    "entropy": Row(make_criterion("entropy", 0.4), (1000.0, 1.2, 0.9, 0.5, 0.1, 0.0)),
    "normalized_entropy": Row(make_criterion("normalized_entropy", 0.4), (2.0, 0.9, 0.5, 0.1, 0.0)),
    "margin": Row(make_criterion("margin", 0.3), (0.0, 0.2, 0.5, 0.9, 2.0)),
    "patience": Row(make_criterion("patience", 2), (1, 2, 3, 4)),
    "patience, regression": Row(make_criterion("patience", 1, tolerance=0.6), (1, 2, 3, 4), "regression"),
    "patience_confidence": Row(make_criterion("patience_confidence", 2, confidence=0.5), (1, 2, 3, 4)),
    "vote": Row(make_criterion("vote", 1.1), (0.0, 0.6, 1.0, 1.6, 2.4, 1000.0)),
    "vote, weighted": Row(
        make_criterion("vote", 1.1, weighting="cost", weights=(0.2, 0.5, 1.0, 1.5)),
        (0.0, 0.3, 0.6, 1.0, 1.6, 1000.0),
    ),
    "vote, reset": Row(make_criterion("vote", 1.1, reset=True), (0.0, 0.4, 0.6, 1.0, 1.6, 1000.0)),
    "learned": Row(
        make_criterion("learned", 0.5, low=(0.1, 0.2, 0.3, 0.4), high=(0.6, 0.7, 0.8, 0.8)),
        (0.0, 0.2, 0.5, 0.8, 2.0),
    ),
    "energy": Row(
        make_criterion("energy", -1.5, temperatures=(0.5, 1.0, 2.0, 3.0)), (9.0, 0.0, -1.0, -3.0, -9.0)
    ),
    "cap": Row(make_criterion("cap", 0.3, alpha=2.0), (2.0, 0.9, 0.5, 0.2, 0.05, 0.0)),
    "fixed": Row(make_criterion("fixed", 2), (1, 2, 3, 4)),
    "oracle": Row(make_criterion("oracle"), (1.0,)),
}


def make_trace(
    logits: np.ndarray, kind: str = "classification", seed: int = 0, residuals: object = None
) -> Trace:
    """A trace of logits `(examples, exits, classes)` with gates, residuals and labels; regression keeps one column."""
    rng = np.random.default_rng(seed)
    n, exits, classes = logits.shape
    values = np.asarray(logits, dtype=np.float32)
    regression = kind == "regression"
    return Trace(
        logits=values[:, :, :1] if regression else values,
        exit_layers=tuple(range(1, exits + 1)),
        flops=np.tile(np.arange(1.0, exits + 1), (n, 1)),
        full_flops=np.full(n, float(exits)),
        labels=rng.normal(size=n).astype(np.float32) if regression else rng.integers(0, classes, n),
        gates=rng.uniform(size=(n, exits)).astype(np.float32),
        kind=kind,
        fingerprint="made up",
        residuals=np.asarray(
            rng.uniform(size=(n, exits)) if residuals is None else residuals, dtype=np.float32
        ),
    )


def random_trace(seed: int, kind: str = "classification", n: int = 12, classes: int = 3) -> Trace:
    """A trace in which answers change, ties occur and every rule has something to decide."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, EXITS, classes)) * rng.choice([0.3, 1.0, 4.0], size=(n, 1, 1))
    logits[: n // 3] = logits[: n // 3].round()
    return make_trace(logits, kind, seed)
