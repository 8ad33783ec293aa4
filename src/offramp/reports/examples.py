"""Adversarial examples as coloured diffs. An attacker wrote the texts: nothing reaches the page raw."""

from __future__ import annotations

from typing import Any

from offramp.attacks.text.diff import diff_html
from offramp.reports.contents import AttackRun
from offramp.reports.markup import Html, tag, text, visible

SHOWN = 12


def examples_section(attack: AttackRun, shown: int = SHOWN) -> Html:
    """The examples that an attack slowed down most.

    Args:
        attack: with its rows.
        shown: how many at most.
    """
    rows = worst(attack.rows.to_pylist(), shown)
    if not rows:
        return tag("p", text(f"{attack.label}: no example was slowed down."), class_="note")
    told = f"{attack.label}: the {len(rows)} examples slowed down most"
    return tag("details", tag("summary", text(told)), *(_example(row) for row in rows), open="")


def worst(rows: list[dict[str, Any]], shown: int) -> list[dict[str, Any]]:
    """The rows with the largest gain in depth, of equal ones those with the fewest changed words."""
    slowed = [row for row in rows if row["adversarial_layer"] > row["clean_layer"]]
    return sorted(
        slowed,
        key=lambda row: (row["clean_layer"] - row["adversarial_layer"], row["words_changed"] or 0, row["id"]),
    )[:shown]


def _example(row: dict[str, Any]) -> Html:
    # `diff_html` escapes every text; what is invisible (zero-width, direction marks) is then written out.
    diff = Html(visible(diff_html(row)))
    label = text(f"example {row['id']}, label {row['label']}")
    return tag("article", tag("p", label, class_="note"), diff, class_="example")
