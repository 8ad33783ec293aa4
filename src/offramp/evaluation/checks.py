"""The evaluation doubts itself: what it refuses to report, and what it reports with a doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.trace import Trace
from offramp.calibration import refuse_if_calibrated
from offramp.engine.policy import Policy
from offramp.evaluation.columns import as_table, floats, require_columns

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 100  # examples below which a 95 % interval on accuracy is wider than about 20 points
MANY_CUT = 0.05


def refuse_unlike(traces: Mapping[str, Trace]) -> None:
    """Refuse to compare traces of different data.

    Args:
        traces: by name, at least one.

    Raises:
        DataError: where there is nothing to compare, labels are missing, or a fingerprint, the number of
            examples or the order of the labels differs.
    """
    if not traces:
        raise DataError("expected at least one trace to compare, got none")
    (first, reference), *others = traces.items()
    labels = reference.require_labels()
    for name, trace in others:
        reason = ""
        if trace.fingerprint != reference.fingerprint:
            reason = (
                f"their data differ (fingerprints {reference.fingerprint[:12]!r}, {trace.fingerprint[:12]!r})"
            )
        elif len(trace) != len(reference):
            reason = f"they have {len(reference)} and {len(trace)} examples"
        elif not np.array_equal(trace.require_labels(), labels):
            reason = "their labels come in another order"
        if reason:
            raise DataError(f"cannot compare {first!r} with {name!r}: {reason}; trace both on the same split")


def trace_doubts(trace: Trace, policy: Policy | None = None) -> tuple[str, ...]:
    """What a reader of numbers from this trace should know.

    Args:
        trace: labelled run of a model over evaluation data.
        policy: the policy to be reported on it.

    Returns:
        Sentences, none where there is nothing to doubt.

    Raises:
        CalibrationError: where the policy was calibrated on this very data.
        DataError: where the trace carries no labels or no examples.
    """
    labels = trace.require_labels()
    if len(trace) == 0:
        raise DataError("expected examples to evaluate, got an empty trace")
    doubts = []
    if policy is not None:
        refuse_if_calibrated(policy, trace)
        if not policy.calibrated_on and policy.temperatures is not None:
            doubts.append("the policy does not say what data its temperatures were fitted on")
    if not trace.fingerprint:
        doubts.append("the trace has no fingerprint: whether it was calibrated on cannot be checked")
    if len(trace) < FEW:
        doubts.append(f"only {len(trace)} examples: intervals are wide")
    if trace.truncated:
        share = trace.truncated / len(trace)
        weight = ", more than a little" if share > MANY_CUT else ""
        doubts.append(f"{trace.truncated} examples ({share:.1%}{weight}) were cut to the maximum length")
    return (*doubts, *_exit_doubts(trace, labels))


def _exit_doubts(trace: Trace, labels: Any) -> list[str]:
    """Exits that say the same about everything."""
    if np.all(labels == labels[0]):
        return ["all labels are the same"]
    predictions = trace.predictions()
    constant = np.flatnonzero((predictions == predictions[0]).all(axis=0))
    return [
        f"the exit at layer {trace.exit_layers[exit]} gives every example the same answer"
        for exit in constant
    ]


def attack_doubts(rows: pa.Table | Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What a reader of an attack table should know.

    Returns:
        Sentences, none where there is nothing to doubt.

    Raises:
        DataError: where columns are missing.
    """
    table = as_table(rows)
    if table.num_rows == 0:
        return ("no example was attacked",)
    names = (
        "id",
        "recipe",
        "seed",
        "text",
        "adversarial_text",
        "clean_layer",
        "adversarial_layer",
        "success",
    )
    require_columns(table, names, "checking an attack")
    keys = list(zip(*(table[name].to_pylist() for name in ("id", "recipe", "seed")), strict=True))
    weaker = floats(table, "adversarial_layer") < floats(table, "clean_layer")
    counts = {
        "examples ended weaker than they began (an earlier exit than the clean text)": weaker.sum(),
        "examples count as successes although no text was changed": (
            _unchanged(table) & (floats(table, "success") > 0)
        ).sum(),
        "rows repeat an example of the same recipe and seed": len(keys) - len(set(keys)),
    }
    few = (f"only {table.num_rows} examples: intervals are wide",) if table.num_rows < FEW else ()
    return (*few, *(f"{count} {what}" for what, count in counts.items() if count))


def _unchanged(table: pa.Table) -> NDArray[np.bool_]:
    """Where both texts are what they were `(examples,)`."""
    same = np.ones(table.num_rows, dtype=bool)
    for name in ("text", "text_pair"):
        if name in table.column_names:
            pairs = zip(table[name].to_pylist(), table[f"adversarial_{name}"].to_pylist(), strict=True)
            same &= np.array([before == after for before, after in pairs])
    return same
