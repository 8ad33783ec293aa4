"""Runs many searches side by side, so that the model always sees full batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from offramp.attacks.account import Account
from offramp.attacks.recipe import Recipe
from offramp.attacks.search import Found, Inspect, Query, Steps
from offramp.attacks.victim import Victim


@dataclass(frozen=True)
class Outcome:
    """What an attack made of one example.

    Attributes:
        clean: the original text.
        adversarial: the strongest text found; the original itself where nothing is stronger.
        account: what it cost.
        seconds: time spent on this example: its own search, and its share of the model calls.
    """

    clean: Found
    adversarial: Found
    account: Account
    seconds: float


class _Running:
    """One search under way: what it waits for, and what it has cost."""

    def __init__(self, steps: Steps, account: Account) -> None:
        self.steps, self.account = steps, account
        self.own_seconds = 0.0
        self.result: tuple[Found, Found] | None = None
        self.request: Query | Inspect | None = None
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
        return Outcome(*self.result, self.account, self.own_seconds + self.account.seconds)


def side_by_side(victim: Victim, recipe: Recipe, searches: Sequence[Steps]) -> list[Outcome]:
    """Run searches together, so that their texts share batches; each gets what it would get alone.

    Args:
        victim: the model under attack.
        recipe: the one recipe of all searches.
        searches: one an example.

    Returns:
        One outcome a search, in order.
    """
    running = [_Running(steps, victim.account()) for steps in searches]
    while any(r.request for r in running):
        for kind in (Query, Inspect):
            waiting = [r for r in running if isinstance(r.request, kind)]
            requests = [(r.account, r.request.texts) for r in waiting if r.request is not None]
            if not requests:
                continue
            replies: list[Any]
            if kind is Query:
                replies = list(victim.query_many(requests))
            elif recipe.needs_gradient:
                replies = list(victim.gradients_many(requests, recipe.objective.loss))
            else:
                replies = [victim.look(texts) for _, texts in requests]
            for r, reply in zip(waiting, replies, strict=True):
                r.send(reply)
    return [r.outcome() for r in running]
