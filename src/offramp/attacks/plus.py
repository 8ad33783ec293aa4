"""Our search: several words from one gradient, few candidates at a time, and an end as soon as it is reached."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.attacks.account import Look
from offramp.attacks.constraints import Constraints, Label
from offramp.attacks.recipe import Recipe
from offramp.attacks.search import Found, Hunt, Inspect, Query, Search, Steps, begin
from offramp.attacks.text import AttackedText


@dataclass(frozen=True)
class PlusSearch(Search):
    """Few queries where few will do, and a long search only where it is needed.

    Each round takes the strongest texts seen so far. The edits proposed for a text are tried in portions, the
    most promising first. Before the first portion and after each one, the best edits of different words, by
    estimate and then by what they were seen to do, are made together: two words, three, up to what the budget
    leaves. Nothing is asked after success. Where the budget of words is used up, words that were changed get
    another replacement. A text that stays among the strongest goes on with its next portions, from the same
    gradient. The search ends where some rounds in a row found nothing stronger.

    Attributes:
        beam: texts gone on with in each round.
        rounds: most rounds.
        portion: edits tried at once.
        portions: portions for each text of the beam in one round.
        idle: rounds without success after which it ends.
    """

    beam: int = 3
    rounds: int = 10
    portion: int = 8
    portions: int = 4
    idle: int = 3

    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
        hunt = yield from begin(text, recipe, label)
        tried = {text: hunt.clean}
        ideas: dict[AttackedText, list[AttackedText]] = {}
        idle = 0
        for _ in range(self.rounds):
            beam = hunt.strongest([f for f in tried.values() if ideas.get(f.text) != []], self.beam)
            if hunt.best.done or not beam or idle == self.idle:
                break
            before = hunt.best
            fresh = [found.text for found in beam if found.text not in ideas]
            looks: list[Look] = yield Inspect(fresh, hunt.objective)
            for look in looks:
                full = not recipe.constraints.open(look.text)
                ideas[look.text] = recipe.propose(look, rng, look.text.changed if full else None)
            for found in beam:
                if (yield from self._around(found.text, recipe, hunt, tried, ideas.get(found.text, []))):
                    return hunt.clean, hunt.best
            idle = 0 if hunt.best is not before else idle + 1
        return hunt.clean, hunt.best

    def _around(
        self,
        text: AttackedText,
        recipe: Recipe,
        hunt: Hunt,
        tried: dict[AttackedText, Found],
        ideas: list[AttackedText],
    ) -> Generator[Query, Any, bool]:
        """Try the next ideas about a text, and take them off the list; whether the search is over."""
        singles: list[Found] = []
        for _ in range(self.portions):
            ranked = [found.text for found in sorted(singles, key=lambda f: f.score, reverse=True)] or ideas
            together = joined(text, ranked, recipe.constraints)
            portion, ideas[:] = ideas[: self.portion], ideas[self.portion :]
            asked = [t for t in dict.fromkeys([*together, *portion]) if t not in tried]
            new = yield from hunt.ask(asked)
            tried |= {found.text: found for found in new}
            if hunt.best.done or len(new) < len(asked):
                return True
            singles += [tried[t] for t in portion]
        return False


def joined(
    text: AttackedText, ranked: Sequence[AttackedText], constraints: Constraints
) -> list[AttackedText]:
    """The best edits of different words made together: the best two, three, up to what the budget allows.

    Args:
        text: where the edits start from.
        ranked: texts one edit away from it, the most promising first.
        constraints: budget, and what is permitted.

    Returns:
        Texts with two and more edits, growing; none where the budget leaves less than two.
    """
    known = dict(text.changes)
    best: dict[int, str] = {}
    for other in ranked:
        for place, word in other.changes:
            if known.get(place) != word:
                best.setdefault(place, word)
    grown, now = [], text
    for place, word in best.items():
        if place not in known and not constraints.open(now):
            break
        step = now.replace(place, word)
        if constraints.permits(step):
            now = step
            grown.append(now)
    return grown[1:]
