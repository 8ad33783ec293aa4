"""Whether an attack that knows its victim from inside does better than random edits under the same budget."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.sanity_checks.doubts import doubt

if TYPE_CHECKING:
    import pyarrow as pa

    from offramp.attacks import AttackResult

_LOG = logging.getLogger(__name__)

ACCURACY, FLOOR = ("-last", "-exit"), "random"  # how names of accuracy attacks end, and of random edits begin
PREPARED = ("same-plus",)  # those that have tried the victim's words before they begin
SHARED = ("policy", "weights", "texts")  # the same victim and the same examples
BUDGET = ("words", "top_n", "beam", "rounds", "keep", "max_edits", "min_similarity")


def random_baseline_doubts(
    white: pa.Table, floor: pa.Table, names: tuple[str, str] = ("the white box", "random edits")
) -> tuple[str, ...]:
    """Whether random edits do better than an attack that knows more, on the same examples.

    Args:
        white: rows of the attack that knows the victim from inside.
        floor: rows of the random one, under the same budget of words and tries.
        names: of both.

    Returns:
        One sentence, or none; none where they have no example in common.
    """
    layers = [
        dict(zip(rows["id"].to_pylist(), floats(rows, "adversarial_layer"), strict=True))
        for rows in (white, floor)
    ]
    common = sorted(layers[0].keys() & layers[1].keys())
    if not common:
        return ()
    one, other = (float(np.mean([side[id] for id in common])) for side in layers)
    if one >= other:
        return ()
    sentence = f"{names[0]} reaches layer {one:.2f} on average, {names[1]} {other:.2f}"
    return (doubt("white-below-random", sentence),)


def random_baseline_beside(folder: Path) -> tuple[str, ...]:
    """Doubts about an attack from those beside it: random edits on the same victim, examples and budget.

    Args:
        folder: of the attack; its neighbours are looked into, where it knows the victim from inside or is random.

    Returns:
        Sentences, none where nothing comparable lies beside it; a neighbour that is damaged is passed over with a
        line in the log.
    """
    from offramp.attacks import AttackResult

    this = AttackResult.load(folder)
    found: list[str] = []
    for other in _neighbours(folder):
        if comparable(this.metadata, other.metadata):
            white, floor = (other, this) if is_random(_recipe(this)) else (this, other)
            names = _recipe(white), _recipe(floor)
            if knows_inside(names[0], white.table) and is_random(names[1]):
                found += random_baseline_doubts(white.table, floor.table, names)
    return tuple(found)


def _neighbours(folder: Path) -> Iterator[AttackResult]:
    from offramp.attacks import AttackResult

    for path in sorted(folder.parent.glob("*/attack.parquet")):
        if path.parent != folder:
            try:
                yield AttackResult.load(path)
            except DataError as error:
                _LOG.warning("%s is not compared with its neighbour: %s", folder.name, error)


def _recipe(attack: AttackResult) -> str:
    return str(attack.metadata.get("recipe", ""))


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two attacks had the same victim, examples and budget."""
    options = one.get("options") or {}, other.get("options") or {}
    alike = all(one.get(name) == other.get(name) for name in (*SHARED, "fewest"))
    return alike and all(options[0].get(name) == options[1].get(name) for name in BUDGET)


def is_accuracy(recipe: str) -> bool:
    """Whether a recipe is after wrong answers, not late exits."""
    return recipe.endswith(ACCURACY)


def is_random(recipe: str) -> bool:
    """Whether a recipe is a floor."""
    return recipe.startswith(FLOOR)


def knows_inside(recipe: str, rows: pa.Table) -> bool:
    """Whether an attack on exits knew its victim from inside: by gradients, or by words that it had tried."""
    told = recipe in PREPARED or floats(rows, "gradient_queries").sum() > 0
    return bool(told) and not is_random(recipe) and not is_accuracy(recipe)
