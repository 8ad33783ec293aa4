"""Whether a victim's answers repeat: the same texts asked again, and alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from offramp.evaluation.sanity_checks.doubts import doubt

if TYPE_CHECKING:
    from datasets import Dataset

    from offramp.attacks.text.attacked_text import AttackedText
    from offramp.attacks.victims.base import Answer, Victim
    from offramp.engine.policy import Policy
    from offramp.inference.engine import Engine
    from offramp.model.base import SegmentedModel

CLOSE = 1e-3  # of logits: batches of other shapes add up in another order
SAME = 1e-6


def victim_doubts(
    target: SegmentedModel | Engine | Victim, policy: Policy | None, examples: Dataset
) -> tuple[str, ...]:
    """Ask a victim about some texts twice in a batch, and alone, and compare the answers.

    Args:
        target: as for `attack`.
        policy: as for `attack`.
        examples: a few rows, as for `attack`.

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
    """Answers in one call, each with a budget of its own, so that none is remembered."""
    return [answer for (answer,) in victim.query_many([(victim.budget(), [text]) for text in texts])]


def _count_unlike(first: Sequence[Answer], second: Sequence[Answer], tolerance: float) -> int:
    """How many answers differ: in their exit or prediction, or in logits by more than a tolerance."""
    return sum(
        a.exit != b.exit
        or not np.isclose(a.prediction, b.prediction, rtol=0, atol=tolerance)
        or not np.allclose(a.logits, b.logits, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
