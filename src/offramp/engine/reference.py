"""The engine's slow and obvious twin: one example at a time, no padding, no sorting, no compaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offramp._core.numbers import softmax
from offramp.criteria import Memory
from offramp.engine.batching import MASK, Encoding
from offramp.engine.policy import Decisions, Policy
from offramp.engine.segments import Segments


def run_reference(
    segments: Segments[Any], policy: Policy, encodings: Sequence[Encoding], labels: ArrayLike | None = None
) -> Decisions:
    """Decide on texts one by one: what `CompactingEngine.run` must give.

    Args:
        segments: the model, cut at its exits.
        policy: when to leave.
        encodings: token ids without padding, one dict a text.
        labels: true labels `(examples,)`, for the `oracle` criterion.

    Returns:
        `Decisions` in the order of `encodings`.
    """
    policy.check(segments.exit_layers, segments.kind, segments.gates)
    truth = [None] * len(encodings) if labels is None else np.asarray(labels).reshape(-1, 1)
    decided = [decide_one(segments, policy, *pair) for pair in zip(encodings, truth, strict=True)]
    regression = segments.kind == "regression"
    exit = np.array([row[0] for row in decided], dtype=np.intp)
    return Decisions(
        exit=exit,
        layer=np.asarray(segments.exit_layers, dtype=np.int64)[exit],
        prediction=np.array([row[1] for row in decided], dtype=np.float32 if regression else np.int64),
        probability=np.array([row[2] for row in decided], dtype=np.float64),
        score=np.array([row[3] for row in decided], dtype=np.float64),
        flops=np.array([row[4] for row in decided], dtype=np.float64),
    )


def decide_one(
    segments: Segments[Any], policy: Policy, encoding: Encoding, label: Any = None
) -> tuple[int, float, float, float, float]:
    """Exit index, answer, probability, score and FLOPs of one example."""
    batch = {name: np.array([values], dtype=np.int64) for name, values in encoding.items()}
    length = next(iter(batch.values())).shape[1]
    batch.setdefault(MASK, np.ones((1, length), dtype=np.int64))
    state = segments.start(batch)
    memory: Memory = {}
    for k in range(len(segments.exit_layers)):
        state, evidence = segments.run(k, state)
        scaled = replace(evidence, label=label).scaled(policy.temperatures)
        score = policy.criterion.score(scaled, memory)[0][0]
        leave, memory = policy.criterion.step(scaled, memory)
        if leave[0]:
            break
    flops = segments.flops(np.array([length]))[0][0, k]
    if segments.kind == "regression":
        return k, evidence.logits[0, 0], np.nan, score, flops
    return k, int(evidence.logits[0].argmax()), softmax(scaled.logits[0]).max(), score, flops
