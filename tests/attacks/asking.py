"""Ask a victim about texts, outside of any attack."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer, Loss, QueryBudget, TokenizedText, Victim


def query(victim: Victim, texts: Sequence[AttackedText], budget: QueryBudget | None = None) -> list[Answer]:
    """Answers within a budget; by default in a fresh one."""
    return victim.query_many([(budget or victim.budget(), texts)])[0]


def gradients(
    victim: Victim, texts: Sequence[AttackedText], loss: Loss, budget: QueryBudget | None = None
) -> list[TokenizedText]:
    """Texts with gradients within a budget; by default in a fresh one."""
    return victim.gradients_many([(budget or victim.budget(), texts)], loss)[0]
