"""Whether an attack that uses its victim's inside does better than random edits under the same budget."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.errors import DataError
from offramp.attacks.recipes import RECIPES
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.sanity_checks.doubts import doubt

if TYPE_CHECKING:
    import pyarrow as pa

    from offramp.attacks import AttackResult

_LOG = logging.getLogger(__name__)

SHARED = ("policy", "weights", "texts", "fewest")  # the same victim and the same examples
BUDGET = ("words", "top_n", "beam", "rounds", "keep", "max_edits", "min_similarity")  # keys of records


def random_baseline_doubts(
    white_box: pa.Table, baseline: pa.Table, names: tuple[str, str] = ("the white box", "random edits")
) -> tuple[str, ...]:
    """Check whether random edits do better than an attack that uses more, on the same examples.

    Args:
        white_box, baseline: rows of the attack that uses the victim's inside, and of the random one, under the same
            budget of words and tries.
        names: of both.

    Returns:
        One sentence, or none; none without a common example.
    """
    layers = [
        dict(zip(rows["id"].to_pylist(), floats(rows, "adversarial_layer"), strict=True))
        for rows in (white_box, baseline)
    ]
    common = sorted(layers[0].keys() & layers[1].keys())
    if not common:
        return ()
    depth, baseline_depth = (float(np.mean([side[id] for id in common])) for side in layers)
    if depth >= baseline_depth:
        return ()
    sentence = f"{names[0]} reaches layer {depth:.2f} on average, {names[1]} {baseline_depth:.2f}"
    return (doubt("white-below-random", sentence),)


def random_baseline_beside(folder: Path) -> tuple[str, ...]:
    """Compare an attack with the attacks beside it: random edits on the same victim, examples and budget.

    Args:
        folder: of the attack; its neighbours are read if it uses the victim's inside or is random.

    Returns:
        Sentences, none if nothing comparable lies beside it. A damaged neighbour is skipped with a line in the log.
    """
    from offramp.attacks import AttackResult

    def condition(attack: AttackResult) -> list[Any]:
        """The victim, the examples and the budget of an attack."""
        metadata, options = attack.metadata, attack.metadata.get("options") or {}
        return [*(metadata.get(name) for name in SHARED), *(options.get(name) for name in BUDGET)]

    def recipe(attack: AttackResult) -> str:
        return str(attack.metadata.get("recipe", ""))

    attack = AttackResult.load(folder)
    doubts: list[str] = []
    for path in sorted(folder.parent.glob("*/attack.parquet")):
        if path.parent == folder:
            continue
        try:
            other = AttackResult.load(path)
        except DataError as error:
            _LOG.warning("%s is not compared with its neighbour: %s", folder.name, error)
            continue
        if condition(attack) == condition(other):
            pair = sorted((attack, other), key=lambda result: is_random_baseline(recipe(result)))
            names = recipe(pair[0]), recipe(pair[1])
            if uses_inside(names[0], pair[0].table) and is_random_baseline(names[1]):
                doubts += random_baseline_doubts(pair[0].table, pair[1].table, names)
    return tuple(doubts)


def is_random_baseline(recipe: str) -> bool:
    """Whether a recipe makes random edits; never for an unknown recipe."""
    return recipe in RECIPES and RECIPES[recipe].is_baseline


def uses_inside(recipe: str, rows: pa.Table) -> bool:
    """Whether a slowdown attack used its victim's inside: gradients, or words that it had tried before.

    The rows decide about gradients: a recipe may take none. An unknown recipe counts as one that uses nothing.
    """
    facts = RECIPES.get(recipe)
    if facts is None or facts.is_baseline or facts.goal != "slowdown":
        return False
    return facts.profiles_victim or bool(floats(rows, "gradient_queries").sum() > 0)
