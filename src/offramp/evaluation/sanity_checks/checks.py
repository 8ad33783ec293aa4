"""Checks of an evaluation by itself: what it refuses to report, and the doubts about traces, attacks and victims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.trace import Trace
from offramp.calibration import refuse_if_calibrated
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import as_table, floats, require_columns
from offramp.evaluation.robustness import SIDES
from offramp.evaluation.sanity_checks.constraint_check import breaches
from offramp.evaluation.sanity_checks.doubts import doubt

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from offramp.attacks.text.attacked_text import AttackedText
    from offramp.attacks.victims.base import Answer, Victim
    from offramp.inference.engine import Engine
    from offramp.model.base import SegmentedModel

FEW = 100  # below so many examples, a 95 % interval on accuracy is wider than about 20 points
MANY_CUT = 0.05
UNLIKELY = 0.001  # p-value below which an exit counts as worse than an earlier one
SAME, CLOSE = 1e-6, 1e-3  # tolerances of logits; in batches of other shapes they add up in another order
NEEDED = ("id", "recipe", "seed", "text", "adversarial_text", "clean_layer", "adversarial_layer", "success")


def refuse_unlike(traces: Mapping[str, Trace]) -> None:
    """Refuse to compare traces (by name, at least one) of different data.

    Raises:
        DataError: there is nothing to compare, labels are missing, or the fingerprints, the numbers of examples or
            the orders of the labels differ.
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
    """Sentences that a reader of numbers from this trace should know; none without doubts.

    Args:
        trace: labelled run of a model over evaluation data.
        policy: the policy whose numbers are reported.

    Raises:
        CalibrationError: the policy was calibrated on the same data.
        DataError: the trace has no labels or no examples.
    """
    labels = trace.require_labels()
    if len(trace) == 0:
        raise DataError("expected examples to evaluate, got an empty trace")
    doubts = []
    if policy is not None:
        refuse_if_calibrated(policy, trace)
        if not policy.calibrated_on and policy.temperatures is not None:
            sentence = "the policy does not say what data its temperatures were fitted on"
            doubts.append(doubt("unknown-calibration", sentence))
    if not trace.fingerprint:
        sentence = "the trace has no fingerprint: whether it was calibrated on cannot be checked"
        doubts.append(doubt("unknown-calibration", sentence))
    doubts += _few(len(trace))
    if trace.truncated:
        share = trace.truncated / len(trace)
        weight = ", more than a little" if share > MANY_CUT else ""
        sentence = f"{trace.truncated} examples ({share:.1%}{weight}) were cut to the maximum length"
        doubts.append(doubt("truncated", sentence))
    return (*doubts, *_exit_doubts(trace, labels))


def _few(examples: int) -> list[str]:
    return [doubt("few", f"only {examples} examples: intervals are wide")] if examples < FEW else []


def _exit_doubts(trace: Trace, labels: Any) -> list[str]:
    """Exits with constant answers, and exits with larger errors than the best exit before them."""
    from scipy.stats import binomtest

    if np.all(labels == labels[0]):
        return [doubt("one-label", "all labels are the same")]
    predictions = trace.predictions()
    constant = np.flatnonzero((predictions == predictions[0]).all(axis=0))
    doubts = [
        doubt(
            "constant-exit",
            f"the exit at layer {trace.exit_layers[exit]} gives every example the same answer",
        )
        for exit in constant
    ]
    truth = labels[:, None]
    errors = abs(predictions - truth) if trace.kind == "regression" else predictions != truth
    for exit in range(1, trace.exits):
        best = int(errors[:, :exit].mean(axis=0).argmin())
        lost, won = (errors[:, exit] > errors[:, best]).sum(), (errors[:, exit] < errors[:, best]).sum()
        if lost > won and binomtest(int(lost), int(lost + won), alternative="greater").pvalue < UNLIKELY:
            at, before = trace.exit_layers[exit], trace.exit_layers[best]
            what = f"the exit at layer {at} is worse than the one at layer {before} on {lost} examples, better on {won}"
            doubts.append(doubt("worse-deeper", what))
    return doubts


def attack_doubts(
    rows: pa.Table | Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Sentences that a reader of an attack table should know; none without doubts.

    Args:
        rows: of the attack.
        metadata: of the attack, to check its constraints again; None skips that check.

    Raises:
        DataError: columns are missing.
    """
    table = as_table(rows)
    if table.num_rows == 0:
        return (doubt("nobody", "no example was attacked"),)
    require_columns(table, NEEDED, "checking an attack")
    keys = list(zip(*(table[name].to_pylist() for name in ("id", "recipe", "seed")), strict=True))
    weaker = floats(table, "adversarial_layer") < floats(table, "clean_layer")
    idle = _unchanged(table) & (floats(table, "success") > 0)
    later = "examples ended weaker than they began (an earlier exit than the clean text)"
    counts = {
        "weaker": (weaker.sum(), later),
        "success-unchanged": (idle.sum(), "examples count as successes although no text was changed"),
        "repeated-rows": (len(keys) - len(set(keys)), "rows repeat an example of the same recipe and seed"),
    }
    doubts = [doubt(name, f"{count} {what}") for name, (count, what) in counts.items() if count]
    layers = {float(n) for side in SIDES for n in np.unique(floats(table, f"{side}_layer"))}
    if len(layers) == 1 and table.num_rows > 1:
        doubts.append(doubt("one-exit", f"all texts, clean and adversarial, leave at layer {layers.pop():g}"))
    violations: dict[str, list[Any]] = {}
    for row in [] if metadata is None else table.to_pylist():
        for name in breaches(row, metadata or {}):
            violations.setdefault(name, []).append(row["id"])
    broken = [
        doubt("constraints", f"{len(ids)} examples break a constraint ({name}), the first has id {ids[0]}")
        for name, ids in violations.items()
    ]
    return (*_few(table.num_rows), *doubts, *_inside_doubts(table), *broken)


def _inside_doubts(table: pa.Table) -> list[str]:
    """Gradients without information, and truncated tokens; tables of older versions have no such columns."""
    doubts, columns = [], set(table.column_names)
    if {"zero_gradients", "broken_gradients"} <= columns:
        taken = int(floats(table, "gradient_queries").sum())
        for name, what in (("zero", "exactly zero"), ("broken", "NaN or infinite")):
            count = int(np.nansum(floats(table, f"{name}_gradients")))
            if count:
                doubts.append(doubt(f"{name}-gradients", f"{count} of {taken} gradients were {what}"))
    if "clean_tokens_lost" in columns:
        clean, after = (np.nan_to_num(floats(table, f"{side}_tokens_lost")) for side in SIDES)
        if (clean > 0).any():
            sentence = f"{(clean > 0).sum()} clean texts lost {int(clean.sum())} tokens to the maximum length"
            doubts.append(doubt("truncated", sentence))
        if (after > clean).any():
            sentence = f"{(after > clean).sum()} adversarial texts lost more tokens than their originals"
            doubts.append(doubt("truncated", sentence))
    return doubts


def _unchanged(table: pa.Table) -> NDArray[np.bool_]:
    """Whether both texts of an example are unchanged `(examples,)`."""
    same = np.ones(table.num_rows, dtype=bool)
    for name in ("text", "text_pair"):
        if name in table.column_names:
            pairs = zip(table[name].to_pylist(), table[f"adversarial_{name}"].to_pylist(), strict=True)
            same &= np.array([before == after for before, after in pairs])
    return same


def victim_doubts(
    target: SegmentedModel | Engine | Victim, policy: Policy | None, examples: Dataset
) -> tuple[str, ...]:
    """Check whether a victim's answers repeat: the same texts asked twice in a batch, and alone.

    Args:
        target, policy, examples: as for `attack`; a few rows are enough.

    Returns:
        Sentences, none if there is nothing to doubt, or if the victim reports seconds alone.
    """
    from offramp.attacks.examples import read_examples
    from offramp.attacks.victims.black_box import as_victim

    victim = as_victim(target, policy)
    texts = [example.text for example in read_examples(examples)]
    first, again = _together(victim, texts), _together(victim, texts)
    if any(answer.exit < 0 for answer in first):
        return ()
    unlike = _count_unlike(first, again, SAME)
    if unlike:
        sentence = f"{unlike} of {len(texts)} texts get another answer when they are asked again"
        return (doubt("dropout", sentence),)
    alone = [_together(victim, [text])[0] for text in texts]
    unlike = _count_unlike(first, alone, CLOSE)
    if unlike:
        return (doubt("batch", f"{unlike} of {len(texts)} texts get another answer alone than in a batch"),)
    return ()


def _together(victim: Victim, texts: Sequence[AttackedText]) -> list[Answer]:
    """Answers in one call, each with its own budget, so that no answer is remembered."""
    return [answer for (answer,) in victim.query_many([(victim.budget(), [text]) for text in texts])]


def _count_unlike(first: Sequence[Answer], second: Sequence[Answer], tolerance: float) -> int:
    """How many answers differ: in their exit or prediction, or in logits by more than a tolerance."""
    return sum(
        a.exit != b.exit
        or not np.isclose(a.prediction, b.prediction, rtol=0, atol=tolerance)
        or not np.allclose(a.logits, b.logits, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
