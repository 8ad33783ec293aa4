"""The comparison of an exported model with its original, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import ModelError
from offramp._core.trace import Trace
from offramp.engine.agreement import check_agreement
from offramp.engine.batching import Encoding
from offramp.engine.compaction import CompactingEngine
from offramp.engine.onnx import OnnxSegments
from offramp.engine.onnx_engine import FusedGraph
from offramp.engine.policy import Policy
from offramp.engine.segments import trace_segments
from offramp.inference.segments import TorchSegments
from offramp.model.base import SegmentedModel

ALONE = 100  # texts that also run one by one
LIMIT = 1e-3  # in float32; a correct graph is a hundred times below
TEXTS = (
    "",
    "a",
    "A gripping, funny film.",
    "The plot is slow and the jokes are worse, yet the cast is a joy to watch from the first scene to the last.",
    "Who wrote the score? Nobody knows; it was found in a drawer, thirty years later, without a name on it.",
    "1234567890 !?.,;:",
    "naïve café: 東京 – Ünïcödé",
    "word " * 600,
)


def compare_exports(
    model: SegmentedModel,
    folder: Path,
    encodings: Sequence[Encoding],
    policy: Policy | None,
    labels: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compare the graphs of a folder with the model that they come from.

    Args:
        model: the torch model.
        folder: its graphs, with their manifest.
        encodings: the texts to compare on.
        policy: decides the exits to compare; None compares the answers at every exit.
        labels: of the texts; if given, the accuracies of a classifier and its export are compared.

    Returns:
        `examples`; `max_logit_difference` over all exits; `changed_answers`, the share of (example, exit) pairs with
        another class (regression: the mean absolute difference); `batch_difference`, the largest difference of a logit
        between batches of 1 and of 32, on the first texts; with labels `accuracy` and `model_accuracy`, under the
        policy or else at the last exit, and by exit `exit_accuracy` and `model_exit_accuracy`; with a policy
        `changed_exits` and `changed_labels`, the shares of examples that leave elsewhere or with another answer, and
        whether the engine agrees with the exported model's trace; with a fused graph `single_differs`, the
        number of texts whose decision differs from that of the segments.
    """
    exported = OnnxSegments(folder, threads=1, verify=False)
    pad_values = exported.manifest.pad_values
    before = trace_segments(TorchSegments(model, residuals=exported.residuals), encodings, pad_values)
    after = trace_segments(exported, encodings, pad_values)
    alone = trace_segments(exported, encodings[:ALONE], pad_values, 1)
    regression = exported.kind == "regression"
    differ = np.abs(before.logits - after.logits)
    checks: dict[str, Any] = {
        "examples": len(encodings),
        "max_logit_difference": float(differ.max()),
        "mean_logit_difference": float(differ.mean()),
        "changed_answers": float(
            (differ if regression else before.predictions() != after.predictions()).mean()
        ),
        "batch_difference": float(np.abs(after.logits[:ALONE] - alone.logits).max()),
    }
    if labels is not None and not regression:
        checks |= accuracies(before, after, policy, np.asarray(labels))
    if policy is None:
        return checks
    expected, decisions = policy.decide(before), policy.decide(after)
    engine = CompactingEngine(exported, policy, pad_values=pad_values).run(encodings)
    agreement = check_agreement(engine, after, policy)
    other = expected.prediction != decisions.prediction
    if regression:
        other = np.abs(expected.prediction.astype(np.float64) - decisions.prediction.astype(np.float64))
    checks |= {
        "changed_exits": float((expected.exit != decisions.exit).mean()),
        "changed_labels": float(other.mean()),
        "engine_differs_from_trace": len(agreement.mismatches),
        "within_noise": agreement.within_noise,
    }
    if exported.manifest.fused_graph:
        fused = FusedGraph(folder, exported.manifest, policy, linear=exported.linear)
        answers = [fused(encoding) for encoding in encodings]
        exits = np.array([answer.exit for answer in answers])
        classes = np.array([answer.logits.argmax() for answer in answers])
        checks["single_differs"] = int(((exits != engine.exit) | (classes != engine.prediction)).sum())
    return checks


def accuracies(
    before: Trace, after: Trace, policy: Policy | None, labels: NDArray[Any]
) -> dict[str, float | list[float]]:
    """Accuracies of a model and its export: by exit, and under the policy or else at the last exit."""
    shares: dict[str, float | list[float]] = {}
    for prefix, run in (("model_", before), ("", after)):
        answers = run.predictions()
        taken = answers[:, -1] if policy is None else policy.decide(run).prediction
        shares[f"{prefix}accuracy"] = float((taken == labels).mean())
        shares[f"{prefix}exit_accuracy"] = [
            float(right) for right in (answers == labels[:, None]).mean(axis=0)
        ]
    return shares


def refuse_wrong_graph(checks: Mapping[str, Any]) -> None:
    """Raise `ModelError` if a float32 export does not compute the same as its model."""
    if not checks["max_logit_difference"] <= LIMIT:  # in this form NaN fails too
        raise ModelError(
            f"the exported graphs differ from the model by {checks['max_logit_difference']:.2g} in a logit, more than "
            f"rounding explains ({LIMIT:g}); this architecture is not exported correctly: run it with backend='torch'"
        )
