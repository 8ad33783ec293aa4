"""Greedy search word by word: rank the words once, then give each its best replacement."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.search.base import (
    PORTION,
    Inspect,
    Query,
    Search,
    SearchState,
    Steps,
    score_candidates,
    start_search,
)
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import TokenizedText


@dataclass(frozen=True)
class GreedySearch(Search):
    """Words one after another, the most important first; each gets the replacement that is strongest.

    A word that no replacement makes stronger stays. Nothing is asked after success.

    Attributes:
        deletion: rank words by how strong the text is without them, one query a word; else the moves' own
            importance ranks them.
    """

    deletion: bool = True

    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
        hunt = yield from start_search(text, recipe, label)
        if hunt.best.done:
            return hunt.clean, hunt.best
        looks: list[TokenizedText] = yield Inspect([text], hunt.objective)
        for look in looks:
            order = yield from self._order(look, recipe, rng, hunt)
            for word in order:
                if hunt.best.done or not recipe.constraints.open(hunt.best.text):
                    break
                now = TokenizedText(hunt.best.text, look.ids, look.tokens, look.gradients)
                texts = recipe.propose(now, rng, [word])
                new = yield from hunt.ask(texts)
                if len(new) < len(texts):
                    break
        return hunt.clean, hunt.best

    def _order(
        self, look: TokenizedText, recipe: Recipe, rng: np.random.Generator, hunt: SearchState
    ) -> Generator[Query, Any, list[int]]:
        """The words that may be changed, the most important first; of equals the first in the text."""
        allowed = recipe.constraints.allowed(look)
        if not self.deletion:
            return list(dict.fromkeys(w for m in recipe.moves for w in m.importance.rank(look, allowed, rng)))
        ranked: list[tuple[tuple[float, float], int]] = []
        for start in range(0, len(allowed), PORTION):
            words = allowed[start : start + PORTION]
            shorter = [look.text.without(word) for word in words]
            asked = score_candidates(shorter, (yield Query(shorter)), hunt.objective)
            ranked += zip((f.score for f in asked), words, strict=False)
            # A budget that ends here leaves some words unranked: there is none left to change them with either.
            if len(asked) < len(words):
                break
        return [word for _, word in sorted(ranked, key=_strength)]


def _strength(ranked: tuple[tuple[float, float], int]) -> tuple[float, float, int]:
    (first, second), word = ranked
    return -first, -second, word
