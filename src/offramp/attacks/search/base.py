"""Searches as generators: they yield requests, so that many examples are attacked side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from offramp.attacks.constraints import Constraints, Label
from offramp.attacks.objectives import Objective
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import Answer, TokenizedText


@dataclass(frozen=True)
class Query:
    """A search asks for answers to texts."""

    texts: Sequence[AttackedText]


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
    """A text that was tried.

    Attributes:
        text: the text.
        answer: the model's answer to it.
        loss: value of the attack's objective.
        score: strength of the text, greater is stronger: by default its exit layer, and among equals the lower
            loss.
        done: whether it reaches the attack's goal.
    """

    text: AttackedText
    answer: Answer
    loss: float
    score: tuple[float, float]
    done: bool


@dataclass(frozen=True)
class PreparationCost:
    """What a search has run for a victim before its examples: texts, and seconds of the model."""

    texts: int = 0
    seconds: float = 0.0


CHUNK = 256  # shortened texts made at once: there is one per word, each almost as long as the text
Request = Query | Inspect | Measure
Steps = Generator[Request, Any, tuple[Candidate, Candidate]]  # returns the clean text and the strongest one


class Search(ABC):
    """A search through the texts of a space."""

    @property
    def prepared(self) -> PreparationCost:
        """What was run once for the victim, in no example's budget."""
        return PreparationCost()

    @abstractmethod
    def steps(
        self, text: AttackedText, space: SearchSpace, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """Attack one text.

        Args:
            text: the example, unchanged.
            space: objective, moves and constraints.
            rng: the example's own generator.
            label: the example's true label, for constraints that preserve it.

        Yields:
            `Query`, `Inspect` and `Measure`. The replies are the answers to, the tokens of, or the seconds of the
            first of the texts: as many as the example's budget allows.

        Returns:
            The clean text and the strongest one, which is never weaker.
        """


class SearchState:
    """The search for one example so far.

    Attributes:
        clean: the original text.
        best: the strongest text accepted so far.
        objective: of this example.
        constraints: of the space.
        label: the true label; None if there is none.
    """

    def __init__(
        self, clean: Candidate, objective: Objective, constraints: Constraints, label: Label
    ) -> None:
        self.clean = self.best = clean
        self.objective, self.constraints, self.label = objective, constraints, label

    def ask(self, texts: Sequence[AttackedText]) -> Generator[Query, Any, list[Candidate]]:
        """Try texts, and keep the strongest that the constraints accept: the first among equals.

        Returns:
            The texts that were answered, accepted or not: as many as the budget allowed.
        """
        candidates = score_candidates(texts, (yield Query(texts)), self.objective)
        better = [c for c in candidates if c.score > self.best.score]
        self.best = next(iter(self.strongest(better, 1)), self.best)
        return candidates

    def strongest(self, tried: Iterable[Candidate], number: int) -> list[Candidate]:
        """The strongest texts that the constraints accept, the first among equals. The judge scores no others."""
        ranked = sorted(tried, key=lambda c: c.score, reverse=True)  # stable
        clean = self.clean
        accepted = (
            c
            for c in ranked
            if self.constraints.accepts(clean.text, clean.answer, c.text, c.answer, self.label)
        )
        return list(islice(accepted, number))


def start_search(text: AttackedText, space: SearchSpace, label: Label) -> Generator[Query, Any, SearchState]:
    """Ask about the clean text, and start from it."""
    (answer,) = yield Query([text])
    objective = space.objective.against(answer)
    (clean,) = score_candidates([text], [answer], objective)
    return SearchState(clean, objective, space.constraints, label)


def score_candidates(
    texts: Sequence[AttackedText], answers: Sequence[Answer], objective: Objective
) -> list[Candidate]:
    """The texts that were answered, with their values; 0 if the victim shows no probabilities."""
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
    """Words and the texts without each of them, a chunk at a time."""
    for start in range(0, len(words), CHUNK):
        chunk = words[start : start + CHUNK]
        yield chunk, [tokenized.text.without(word) for word in chunk]
