"""Adversarial texts of one model, run on another: how deep it goes on them."""

from __future__ import annotations

from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.result import AttackResult, make_row
from offramp.attacks.search.base import score_candidates
from offramp.attacks.search.runner import Outcome
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import QueryBudget
from offramp.attacks.victims.base import Victim
from offramp.attacks.victims.black_box import as_victim
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.model.base import SegmentedModel

KEPT = ("words", "words_changed", "similarity", "recipe", "seed")


def transfer(
    rows: AttackResult, model: SegmentedModel | Engine | Victim, policy: Policy | None = None
) -> AttackResult:
    """Run the clean and the adversarial texts of an attack on another model.

    Args:
        rows: the attack on the first model.
        model: the other one: a model, a deployed engine, or any victim.
        policy: when a model leaves; None for the others.

    Returns:
        Rows as of an attack, with exits, costs and predictions of the other model and without queries; words,
        similarity, recipe and seed are those of the first attack. A text may leave earlier than its original.
    """
    model = as_victim(model, policy)
    table = rows.rows
    before = [AttackedText.of(row["text"], row["text_pair"]) for row in table]
    after = [AttackedText.of(row["adversarial_text"], row["adversarial_text_pair"]) for row in table]
    asked = [(QueryBudget(), [old, new]) for old, new in zip(before, after, strict=True)]
    answers = model.query_many(asked)
    moved = []
    for row, texts, pair in zip(table, zip(before, after, strict=True), answers, strict=True):
        clean, adversarial = score_candidates(texts, pair, ExitDepth())
        outcome = Outcome(clean, adversarial, QueryBudget(), 0.0)
        moved.append(make_row(row["id"], row["label"], outcome) | {name: row[name] for name in KEPT})
    metadata = {**rows.metadata, **model.describe(), "transferred_from": rows.metadata.get("weights")}
    return AttackResult.of(moved, {**metadata, "kind": model.kind})
