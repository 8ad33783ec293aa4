"""Exit criteria: when may an example leave?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, cast

from offramp._core.errors import CriterionError, unknown_name
from offramp.criteria.base import Criterion, Memory, best_so_far, first_exit, scores, threshold_grid
from offramp.criteria.certainty import Cap
from offramp.criteria.learned import Learned
from offramp.criteria.patience import Patience, PatienceConfidence, Vote
from offramp.criteria.probability import Confidence, Energy, Entropy, Margin, NormalizedEntropy
from offramp.criteria.reference import Fixed, Oracle

__all__ = [
    "CRITERIA",
    "Criterion",
    "Memory",
    "best_so_far",
    "first_exit",
    "make_criterion",
    "scores",
    "threshold_grid",
    "with_threshold",
]

CRITERIA: dict[str, type[Criterion]] = {
    "confidence": Confidence,
    "entropy": Entropy,
    "normalized_entropy": NormalizedEntropy,
    "margin": Margin,
    "patience": Patience,
    "patience_confidence": PatienceConfidence,
    "learned": Learned,
    "vote": Vote,
    "energy": Energy,
    "cap": Cap,
    "fixed": Fixed,
    "oracle": Oracle,
}


def make_criterion(
    name: str, threshold: float | Sequence[float] | None = None, **options: object
) -> Criterion:
    """Make an exit rule by name.

    Args:
        name: a key of `CRITERIA`.
        threshold: of the rule: one number, or one for each exit but the last; None takes its default.
        options: the rule's own options, such as `tolerance` of patience.

    Raises:
        CriterionError: an unknown name or option, or a value out of range.
    """
    if not isinstance(name, str) or name not in CRITERIA:
        raise CriterionError(unknown_name("criterion", name, CRITERIA))
    rule = CRITERIA[name]
    accepted = [f.name for f in fields(rule) if f.name != "threshold"]
    for option in options:
        if option not in accepted:
            raise CriterionError(unknown_name(f"option of {name!r}", option, accepted))
    # The types of options differ from rule to rule, and each rule checks its own.
    chosen = cast(Any, rule.default_threshold if threshold is None else threshold)
    return rule(chosen, **cast(dict[str, Any], options))


def with_threshold(criterion: Criterion, threshold: float | Sequence[float]) -> Criterion:
    """The same rule with the same options and another threshold, such as one of `threshold_grid`."""
    return replace(criterion, threshold=cast(Any, threshold))
