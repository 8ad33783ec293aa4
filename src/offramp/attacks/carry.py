"""Adversarial texts of one model, run on another: how deep it goes on them."""

from __future__ import annotations

from offramp.attacks.account import Account
from offramp.attacks.blackbox import as_victim
from offramp.attacks.door import Door
from offramp.attacks.drive import Outcome
from offramp.attacks.objectives import DepthAlone
from offramp.attacks.result import AttackResult, make_row
from offramp.attacks.search import found
from offramp.attacks.text import AttackedText
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.model.base import SegmentedModel

KEPT = ("words", "words_changed", "similarity", "recipe", "seed")


def transfer(
    rows: AttackResult, model: SegmentedModel | Engine | Door, policy: Policy | None = None
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
    asked = [(Account(), [old, new]) for old, new in zip(before, after, strict=True)]
    answers = model.query_many(asked)
    moved = []
    for row, texts, pair in zip(table, zip(before, after, strict=True), answers, strict=True):
        clean, adversarial = found(texts, pair, DepthAlone())
        outcome = Outcome(clean, adversarial, Account(), 0.0)
        moved.append(make_row(row["id"], row["label"], outcome) | {name: row[name] for name in KEPT})
    metadata = {**rows.metadata, **model.describe(), "transferred_from": rows.metadata.get("weights")}
    return AttackResult.of(moved, {**metadata, "kind": model.kind})
