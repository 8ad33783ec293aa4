"""Runs many searches side by side, so that the model always sees full batches."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offramp.attacks.objectives.base import Objective
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.search.base import Candidate, Inspect, Measure, Query, Request, Steps
from offramp.attacks.victims.answers import QueryBudget
from offramp.attacks.victims.base import Victim


@dataclass(frozen=True)
class Outcome:
    """What an attack made of one example.

    Attributes:
        clean: the original text.
        adversarial: the strongest text found; the original itself where nothing is stronger.
        account: what it cost.
        seconds: time spent on this example: its own search, and its share of the model calls.
    """

    clean: Candidate
    adversarial: Candidate
    budget: QueryBudget
    seconds: float

    @property
    def slower(self) -> bool:
        """Whether the adversarial text leaves later; where no layers are told, whether it costs more."""
        before, after = self.clean.answer, self.adversarial.answer
        return after.layer > before.layer if before.layer else after.cost > before.cost


class _Running:
    """One search under way: what it waits for, and what it has cost."""

    def __init__(self, steps: Steps, account: QueryBudget) -> None:
        self.steps, self.budget = steps, account
        self.own_seconds = 0.0
        self.result: tuple[Candidate, Candidate] | None = None
        self.request: Request | None = None
        self.send(None)

    def send(self, reply: Any) -> None:
        """Hand over a reply and run to the next request."""
        started = time.perf_counter()
        try:
            self.request = self.steps.send(reply)
        except StopIteration as stop:
            self.request, self.result = None, stop.value
        self.own_seconds += time.perf_counter() - started

    def outcome(self) -> Outcome:
        assert self.result is not None
        return Outcome(*self.result, self.budget, self.own_seconds + self.budget.seconds)


def run_searches(victim: Victim, recipe: Recipe, searches: Sequence[Steps]) -> list[Outcome]:
    """Run searches together, so that their texts share batches; each gets what it would get alone.

    Args:
        victim: what is under attack.
        recipe: the one recipe of all searches.
        searches: one an example.

    Returns:
        One outcome a search, in order.
    """
    running = [_Running(steps, victim.budget(recipe.queries)) for steps in searches]
    while any(r.request for r in running):
        for kind in (Query, Inspect, Measure):
            waiting = [r for r in running if isinstance(r.request, kind)]
            if kind is Query:
                _answer(victim, waiting)
            elif kind is Measure:  # one after another, since texts in one batch would share the time
                for r in waiting:
                    assert r.request is not None
                    r.send(victim.measure(r.budget, r.request.texts))
            else:
                _show(victim, waiting, recipe.needs_gradient)
    return [r.outcome() for r in running]


def _answer(victim: Victim, waiting: Sequence[_Running]) -> None:
    """Answer all queries in shared batches."""
    if not waiting:
        return
    requests = [(r.budget, r.request.texts) for r in waiting if r.request is not None]
    for r, reply in zip(waiting, victim.query_many(requests), strict=True):
        r.send(reply)


def _show(victim: Victim, waiting: Sequence[_Running], gradients: bool) -> None:
    """Let all look inside: together where they want the gradient of the same objective."""
    groups: dict[Objective, list[_Running]] = defaultdict(list)
    for r in waiting:
        assert isinstance(r.request, Inspect)
        groups[r.request.objective].append(r)
    for objective, group in groups.items():
        requests = [(r.budget, r.request.texts) for r in group if r.request is not None]
        if gradients:
            looks = victim.gradients_many(requests, objective.loss)
        else:
            looks = [victim.inspect(texts) for _, texts in requests]
        for r, reply in zip(group, looks, strict=True):
            r.send(reply)
