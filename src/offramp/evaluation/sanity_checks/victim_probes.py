"""Whether a victim can be trusted: the same texts asked again, and alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.evaluation.sanity_checks.doubts import doubt

if TYPE_CHECKING:
    from offramp.attacks.victims.answers import Answer
    from offramp.attacks.victims.base import Victim
    from offramp.engine.policy import Policy
    from offramp.inference.engine import Engine
    from offramp.model.base import SegmentedModel

CLOSE = 1e-3  # of logits: batches of other shapes add up in another order
SAME = 1e-6


def victim_doubts(
    model: SegmentedModel | Engine | Victim, policy: Policy | None, examples: Any
) -> tuple[str, ...]:
    """What a reader of an attack on this victim should know; some texts are asked twice in a batch, and alone.

    Args:
        model: the victim, as for `attack`.
        policy: when it leaves; None for an engine or a door.
        examples: a few rows, as for `attack`.

    Returns:
        Sentences, none where there is nothing to doubt. Nothing is said about a victim that tells seconds.
    """
    from offramp.attacks.examples import read_examples
    from offramp.attacks.victims.black_box import as_victim

    victim = as_victim(model, policy)
    texts = [example.text for example in read_examples(examples)]
    first, again = _together(victim, texts), _together(victim, texts)
    if any(answer.exit < 0 for answer in first):
        return ()
    unlike = _unlike(first, again, SAME)
    if unlike:
        sentence = f"{unlike} of {len(texts)} texts get another answer when they are asked again"
        return (doubt("dropout", sentence),)
    alone = [_together(victim, [text])[0] for text in texts]
    unlike = _unlike(first, alone, CLOSE)
    if unlike:
        return (doubt("batch", f"{unlike} of {len(texts)} texts get another answer alone than in a batch"),)
    return ()


def _together(victim: Victim, texts: Sequence[Any]) -> list[Answer]:
    """Answers in one call, each on an account of its own, so that none is remembered."""
    return [answer for (answer,) in victim.query_many([(victim.budget(), [text]) for text in texts])]


def _unlike(one: Sequence[Answer], other: Sequence[Answer], tolerance: float) -> int:
    """How many answers differ: in their exit or prediction, or in logits by more than a tolerance."""
    return sum(
        a.exit != b.exit
        or not np.isclose(a.prediction, b.prediction, rtol=0, atol=tolerance)
        or not np.allclose(a.logits, b.logits, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )
