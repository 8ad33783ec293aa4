"""Adversarial texts of one model, run on another."""

from __future__ import annotations

from pathlib import Path

from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.result import AttackResult, make_row
from offramp.attacks.search.base import score_candidates
from offramp.attacks.search.runner import Outcome
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Victim
from offramp.attacks.victims.black_box import as_victim
from offramp.attacks.victims.query_budget import QueryBudget
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.model.base import SegmentedModel

COPIED = ("words", "words_changed", "similarity", "recipe", "seed")


def transfer(
    result: AttackResult,
    target: SegmentedModel | Engine | Victim | str | Path,
    policy: Policy | None = None,
) -> AttackResult:
    """Run the clean and the adversarial texts of an attack on another model.

    Args:
        result: the attack on the first model.
        target: the other one, as for `attack`.
        policy: as for `attack`.

    Returns:
        A result with exits, costs and predictions of the other model and without queries. Words, similarity, recipe and
        seed are those of the first attack. A text may leave earlier than its original.
    """
    victim = as_victim(target, policy)
    pairs = [
        [AttackedText.of(row[f"{side}text"], row[f"{side}text_pair"]) for side in ("", "adversarial_")]
        for row in result.rows
    ]
    answers = victim.query_many([(QueryBudget(), pair) for pair in pairs])
    rows = []
    for row, texts, replies in zip(result.rows, pairs, answers, strict=True):
        clean, adversarial = score_candidates(texts, replies, ExitDepth())
        outcome = Outcome(clean, adversarial, QueryBudget(), 0.0)
        rows.append(make_row(row["id"], row["label"], outcome) | {name: row[name] for name in COPIED})
    metadata = {**result.metadata, **victim.describe(), "transferred_from": result.metadata.get("weights")}
    return AttackResult.of(rows, {**metadata, "kind": victim.kind})
