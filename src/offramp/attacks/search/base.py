"""Searches as generators that yield requests, and the loop that runs many of them side by side."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.random import Generator as Rng

from offramp.attacks.constraints.constraints import Constraints, Label
from offramp.attacks.objectives.base import Objective
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer, BudgetedTexts, QueryBudget, TokenizedText, Victim
from offramp.attacks.victims.ranking import Ranking


@dataclass(frozen=True)
class Query:
    """A search asks for answers to texts."""

    texts: Sequence[AttackedText]


@dataclass(frozen=True)
class Rank:
    """A search asks for answers to the texts that get a place in a ranking; other texts may have None."""

    texts: Sequence[AttackedText]
    ranking: Ranking


@dataclass(frozen=True)
class Inspect:
    """A search asks for the tokens of texts, with gradients of its objective if its space needs them."""

    texts: Sequence[AttackedText]
    objective: Objective


@dataclass(frozen=True)
class Measure:
    """A search asks for the seconds that each text takes; a text may be measured again."""

    texts: Sequence[AttackedText]


@dataclass(frozen=True)
class Candidate:
    """A text that was tried."""

    text: AttackedText
    answer: Answer
    loss: float  # value of the objective
    score: tuple[float, float]  # greater is stronger: see `Objective.score`
    done: bool  # whether it reaches the attack's goal


@dataclass(frozen=True)
class PreparationCost:
    """What a search has run for a victim before its examples: texts, and seconds of the model."""

    texts: int = 0
    seconds: float = 0.0


CHUNK = 256  # shortened texts made at once; one per word, each almost as long as the text
Request = Query | Rank | Inspect | Measure
Steps = Generator[Request, Any, tuple[Candidate, Candidate]]  # returns the clean text and the strongest one


class Search(ABC):
    """A search through the texts of a space."""

    def prepare(self) -> PreparationCost:
        """Make now the runs that are made once for the victim; otherwise the first example makes them."""
        return self.prepared

    @property
    def prepared(self) -> PreparationCost:
        """The runs made once for the victim, which count in no example's budget."""
        return PreparationCost()

    @abstractmethod
    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        """Attack the text of one example.

        Args:
            text: the text, unchanged.
            space: objective, moves and constraints.
            rng: the example's own generator.
            label: the true label, for constraints that preserve it.

        Yields:
            `Query`, `Rank`, `Inspect` and `Measure`. A reply holds the answers, tokens or seconds of the first texts,
            as many as the example's budget allows.

        Returns:
            The clean text and the strongest one, which is never weaker.
        """


class SearchState:
    """The search for one example so far: its clean text, and `best`, the strongest accepted text."""

    def __init__(
        self, clean: Candidate, objective: Objective, constraints: Constraints, label: Label
    ) -> None:
        self.clean = self.best = clean
        self.objective, self.constraints, self.label = objective, constraints, label

    def ask(self, texts: Sequence[AttackedText]) -> Generator[Query, Any, list[Candidate]]:
        """Try texts, keep the strongest that the constraints accept, and return all that the budget allowed."""
        candidates = score_candidates(texts, (yield Query(texts)), self.objective)
        self.keep_best(candidates)
        return candidates

    def rank(
        self, texts: Sequence[AttackedText], ranking: Ranking | None
    ) -> Generator[Query | Rank, Any, dict[AttackedText, Candidate | None]]:
        """Try texts that compete in a ranking, keep the strongest, and return all that the budget allowed.

        Texts without a place have None. Without a ranking, all have a place.
        """
        answers: list[Answer | None] = yield Query(texts) if ranking is None else Rank(texts, ranking)
        placed = {text: answer for text, answer in zip(texts, answers, strict=False) if answer is not None}
        candidates = score_candidates(list(placed), list(placed.values()), self.objective)
        self.keep_best(candidates)
        return dict.fromkeys(texts[: len(answers)]) | {c.text: c for c in candidates}

    def keep_best(self, candidates: Sequence[Candidate]) -> None:
        """Keep the strongest of these candidates if it is stronger than the best so far."""
        better = [c for c in candidates if c.score > self.best.score]
        self.best = next(iter(self.strongest(better, 1)), self.best)

    def strongest(self, tried: Iterable[Candidate], number: int) -> list[Candidate]:
        """The strongest texts that the constraints accept, the first among equals. The judge scores only these."""
        ranked = sorted(tried, key=lambda c: c.score, reverse=True)  # stable
        return list(islice((c for c in ranked if self.accepts(c.text, c.answer)), number))

    def accepts(self, text: AttackedText, answer: Answer) -> bool:
        """Whether the constraints accept a text with this answer."""
        return self.constraints.accepts(self.clean.text, self.clean.answer, text, answer, self.label)


def start_search(text: AttackedText, space: SearchSpace, label: Label) -> Generator[Query, Any, SearchState]:
    """Ask about the clean text, and start from it."""
    (answer,) = yield Query([text])
    objective = space.objective.against(answer)
    (clean,) = score_candidates([text], [answer], objective)
    return SearchState(clean, objective, space.constraints, label)


def score_candidates(
    texts: Sequence[AttackedText], answers: Sequence[Answer], objective: Objective
) -> list[Candidate]:
    """The answered texts with their values; 0 if the victim shows no probabilities."""
    if not answers:
        return []
    logits = np.stack([answer.logits for answer in answers])
    values = np.zeros(len(answers))
    if logits.shape[-1]:
        values = objective.value(logits, np.array([answer.exit for answer in answers]))
    return [
        Candidate(text, answer, value, objective.score(answer, value), objective.done(answer, value))
        for text, answer, value in zip(texts, answers, values.tolist(), strict=False)
    ]


def without_each(
    tokenized: TokenizedText, words: Sequence[int]
) -> Iterator[tuple[Sequence[int], list[AttackedText]]]:
    """Words, and the texts without each of them, in chunks."""
    for start in range(0, len(words), CHUNK):
        chunk = words[start : start + CHUNK]
        yield chunk, [tokenized.text.without(word) for word in chunk]


@dataclass(frozen=True)
class Outcome:
    """The result for one example."""

    clean: Candidate
    adversarial: Candidate  # the strongest text; the clean one itself if nothing is stronger
    budget: QueryBudget
    seconds: float  # time spent on this example: its own search, and its share of the model calls

    @property
    def slower(self) -> bool:
        """Whether the adversarial text leaves later; if the victim shows no layers, whether it costs more."""
        before, after = self.clean.answer, self.adversarial.answer
        return after.layer > before.layer if before.layer else after.spent > before.spent


class RunningSearch:
    """One running search: the request it waits for, and its cost so far."""

    def __init__(self, steps: Steps, budget: QueryBudget) -> None:
        self.steps, self.budget = steps, budget
        self.own_seconds = 0.0
        self.result: tuple[Candidate, Candidate] | None = None
        self.request: Request | None = None
        self.send(None)

    @property
    def asked(self) -> BudgetedTexts:
        assert self.request is not None
        return self.budget, self.request.texts

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


def run_searches(
    victim: Victim, searches: Sequence[Steps], *, gradients: bool = False, queries: int | None = None
) -> list[Outcome]:
    """Run searches together, so their texts share batches; each has the result that it would have alone.

    Args:
        victim: the victim.
        searches: one for each example; the outcomes have the same order.
        gradients: whether the searches need gradients of the texts they inspect.
        queries: most forward queries per example; None for the victim's own limit.
    """
    *_, running = search_rounds(victim, searches, gradients=gradients, queries=queries)
    return [r.outcome() for r in running]


def search_rounds(
    victim: Victim, searches: Sequence[Steps], *, gradients: bool = False, queries: int | None = None
) -> Iterator[list[RunningSearch]]:
    """`run_searches` in steps: yield the searches before each round of requests, and once all are over."""
    running = [RunningSearch(steps, victim.budget(queries)) for steps in searches]
    yield running
    while any(r.request for r in running):
        waiting = [r for r in running if isinstance(r.request, Query)]
        _reply(waiting, victim.query_many([r.asked for r in waiting]))
        ranked = [(r, r.request.ranking) for r in running if isinstance(r.request, Rank)]
        ranking_replies = victim.rank_many([r.asked for r, _ in ranked], [ranking for _, ranking in ranked])
        _reply([r for r, _ in ranked], ranking_replies)
        groups: dict[Objective, list[RunningSearch]] = defaultdict(list)  # each gradient is of one objective
        for r in running:
            if isinstance(r.request, Inspect):
                groups[r.request.objective].append(r)
        for objective, group in groups.items():
            if gradients:
                _reply(group, victim.gradients_many([r.asked for r in group], objective.loss))
            else:
                _reply(group, [victim.inspect(r.asked[1]) for r in group])
        for r in running:
            if isinstance(r.request, Measure):  # not in batches: texts in one batch would share the time
                r.send(victim.measure(*r.asked))
        yield running


def _reply(waiting: Sequence[RunningSearch], replies: Sequence[Any]) -> None:
    for r, reply in zip(waiting, replies, strict=True):
        r.send(reply)
