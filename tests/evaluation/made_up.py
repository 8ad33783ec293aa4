"""Traces and attack rows to evaluate: tiny ones with round numbers, and random ones that are like models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Trace

ROW: dict[str, Any] = {
    "id": 0,
    "label": 1,
    "text": "a good film",
    "text_pair": None,
    "adversarial_text": "a fine film",
    "adversarial_text_pair": None,
    "clean_prediction": 1,
    "adversarial_prediction": 1,
    "words": 4,
    "words_changed": 1,
    "similarity": 0.9,
    "forward_queries": 50,
    "gradient_queries": 2,
    "seconds": 0.5,
    "success": True,
    "reached_last": False,
    "recipe": "same-word",
    "seed": 0,
}
LAYERS = (1, 2, 4)


def attack_row(clean: int, adversarial: int, **changes: Any) -> dict[str, Any]:
    """A row that went from one exit (0-based, of layers 1, 2, 4) to another; layer l costs 100·l."""
    row = dict(ROW)
    for side, exit in (("clean", clean), ("adversarial", adversarial)):
        row |= {f"{side}_exit": exit, f"{side}_layer": LAYERS[exit]}
        row |= {f"{side}_cost": 100.0 * LAYERS[exit], f"{side}_full_cost": 400.0}
    return row | {"reached_last": adversarial == 2, "success": adversarial > clean} | changes


def trace_of(confidences: Any, right: Any, layers: tuple[int, ...], **changes: Any) -> Trace:
    """A two-class trace with these confidences, right or wrong `(examples, exits)`; all labels are 1."""
    sure, correct = np.asarray(confidences, dtype=np.float64), np.asarray(right, dtype=bool)
    gap = np.log(sure / (1 - sure))
    logits = np.stack([np.zeros_like(gap), np.where(correct, gap, -gap)], axis=2).astype(np.float32)
    costs = np.tile(np.asarray(layers, dtype=np.float64), (len(sure), 1))
    content: dict[str, Any] = {
        "logits": logits,
        "exit_layers": layers,
        "flops": costs,
        "full_flops": costs[:, -1].copy(),
        "labels": np.ones(len(sure), dtype=np.int64),
        "fingerprint": "toy",
    }
    return Trace(**(content | changes))


def model_trace(
    seed: int = 0,
    *,
    examples: int = 200,
    layers: tuple[int, ...] = (1, 4, 6, 12),
    classes: int = 2,
    skill: float = 1.0,
    cascade: bool = False,
) -> Trace:
    """Logits that favour the true class more with every exit; labels are the same for every seed."""
    data, model = np.random.default_rng(0), np.random.default_rng([1, seed])
    labels, lengths = data.integers(classes, size=examples), data.integers(8, 60, size=(examples, 1))
    hardness = data.normal(size=(examples, 1))
    margin = (
        skill * np.linspace(0.6, 2.4, len(layers)) - hardness + model.normal(size=(examples, len(layers)))
    )
    logits = np.zeros((examples, len(layers), classes), dtype=np.float32)
    logits[np.arange(examples), :, labels] = margin
    units = np.cumsum(layers) if cascade else np.asarray(layers)
    costs = (lengths * units).astype(np.float64)
    full: NDArray[np.float64] = (lengths[:, 0] * layers[-1]).astype(np.float64)
    return Trace(logits, layers, costs, full, labels, fingerprint="made up")


def regression_trace(seed: int = 0, examples: int = 120) -> Trace:
    """Values nearer to the target with every exit."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0, 5, size=examples).astype(np.float32)
    noise = random.normal(size=(examples, 3)) * np.array([2.0, 1.0, 0.3])
    logits = (truth[:, None] + noise).astype(np.float32)[:, :, None]
    costs = np.tile([1.0, 2.0, 3.0], (examples, 1))
    return Trace(logits, (1, 2, 3), costs, costs[:, -1], truth, kind="regression", fingerprint="stsb")
