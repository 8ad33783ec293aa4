"""The adversarial examples of an attack as plain data, which the page searches, sorts and shows a few at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from offramp._core.text import visible
from offramp.attacks.text.diff import ADDED, REMOVED, marked_words
from offramp.reports.contents import AttackRun

SHOWN = 3  # classes of a bar: the likeliest ones
KINDS = {"": 0, REMOVED: 1, ADDED: 2}


def example_data(attack: AttackRun) -> dict[str, Any]:
    """The rows of an attack in JSON's own types, with every character visible.

    Returns:
        `label`, `classes` and `layers` of the exits, and `rows`: `id`, `label`, exits and predictions of the two sides
        (clean, adversarial), `changed` of `words`, `similarity`, `segments` as stretches of (words, 0 kept, 1 removed,
        2 added), and `ladder`: for each side and exit the likeliest classes with their probabilities; None where the
        record has none. No rows where the record has no texts.
    """
    needed = {"text", "adversarial_text"} <= set(attack.rows.column_names)
    rows = [row for row in attack.rows.to_pylist() if needed and row["text"] is not None]
    return {
        "label": visible(attack.label),
        "classes": [visible(name) for name in attack.classes],
        "layers": list(attack.exit_layers),
        "rows": [_example(row) for row in rows],
    }


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    similarity = row.get("similarity")
    return {
        "id": row["id"],
        "label": _answer(row["label"]),
        "exits": [row[f"{side}_exit"] for side in ("clean", "adversarial")],
        "answers": [_answer(row[f"{side}_prediction"]) for side in ("clean", "adversarial")],
        "changed": row["words_changed"],
        "words": row["words"],
        "similarity": None if similarity is None or similarity != similarity else round(similarity, 3),
        "segments": [[[visible(words), KINDS[kind]] for words, kind in parts] for parts in marked_words(row)],
        "ladder": [_ladder(row.get(f"{side}_probabilities")) for side in ("clean", "adversarial")],
    }


def _answer(value: float | int | None) -> float | int | None:
    """A class index as a whole number, a value of a regression with three digits."""
    if value is None or value != value:
        return None
    return int(value) if float(value).is_integer() else round(float(value), 3)


def _ladder(exits: Sequence[Sequence[float]] | None) -> list[list[tuple[int, float]]] | None:
    if exits is None:
        return None
    ladder = []
    for probabilities in exits:
        ranked = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])[:SHOWN]
        ladder.append([(i, round(probabilities[i], 3)) for i in sorted(ranked)])
    return ladder
