"""Searches as generators: they yield what they ask, so that many examples are attacked side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.attacks.constraints.constraints import Constraints, Label
from offramp.attacks.objectives.base import Objective
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import Answer, TokenizedText

if TYPE_CHECKING:
    from offramp.attacks.recipes.base import Recipe


@dataclass(frozen=True)
class Query:
    """A search asks for answers to texts."""

    texts: Sequence[AttackedText]


@dataclass(frozen=True)
class Inspect:
    """A search asks for a look at texts, with gradients of its objective where the recipe needs them."""

    texts: Sequence[AttackedText]
    objective: Objective


@dataclass(frozen=True)
class Measure:
    """A search asks how long each of some texts takes, in seconds; a text may be asked about again."""

    texts: Sequence[AttackedText]


@dataclass(frozen=True)
class Candidate:
    """A text that was tried.

    Attributes:
        text: the text.
        answer: what the model does with it.
        loss: value of the attack's objective.
        score: how strong the text is for it, greater is stronger: by default its exit layer, and among
            equals the lower loss.
        done: whether it is all that the attack wants.
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


PORTION = 256  # shortened texts made at once: there are as many as words, each almost as long as the text
Request = Query | Inspect | Measure
Steps = Generator[Request, Any, tuple[Candidate, Candidate]]  # returns the clean text and the strongest one


class Search(ABC):
    """A way through the texts that a recipe proposes."""

    @property
    def prepared(self) -> PreparationCost:
        """What was run once for the victim, and stands in no example's account."""
        return PreparationCost()

    @abstractmethod
    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """Attack one text.

        Args:
            text: the example, unchanged.
            recipe: objective, moves and constraints.
            rng: the example's own generator.
            label: the example's true label, for constraints that keep it.

        Yields:
            `Query`, `Inspect` and `Measure`. What is sent back are the answers to, looks at, or seconds of
            the first of the texts: as many as the example's budget allows.

        Returns:
            The clean text and the strongest one, which is never weaker.
        """


@dataclass(frozen=True)
class BeamSearch(Search):
    """Beam search that keeps the best text ever seen and stops on success.

    Each round looks at every text of the beam in turn, tries the edits proposed for it, and then keeps the
    strongest texts of this round. A text is stronger if it leaves at a later layer, or at the same layer
    with a lower loss; of equals the one found first counts. The best text ever gives way only to a stronger
    one. Success, leaving at the last exit, is looked for after the edits of each text of the beam: nothing
    is asked after that.

    Attributes:
        beam: texts kept after each round.
        rounds: most rounds; each changes one more word.
    """

    beam: int = 5
    rounds: int = 10

    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
        hunt = yield from start_search(text, recipe, label)
        beam = [hunt.clean]
        for _ in range(self.rounds):
            beam = [found for found in beam if recipe.constraints.open(found.text)]
            if hunt.best.done or not beam:
                break
            looks: list[TokenizedText] = yield Inspect([found.text for found in beam], hunt.objective)
            tried: dict[AttackedText, Candidate] = {}
            for look in looks:
                texts = [t for t in recipe.propose(look, rng) if t not in tried]
                new = yield from hunt.ask(texts)
                tried |= {found.text: found for found in new}
                if hunt.best.done or len(new) < len(texts):
                    return hunt.clean, hunt.best
            beam = hunt.strongest(tried.values(), self.beam)
        return hunt.clean, hunt.best


class SearchState:
    """One example's search so far: its objective, its clean text, and the strongest text ever accepted."""

    def __init__(
        self, clean: Candidate, objective: Objective, constraints: Constraints, label: Label
    ) -> None:
        self.clean = self.best = clean
        self.objective, self.constraints, self.label = objective, constraints, label

    def ask(self, texts: Sequence[AttackedText]) -> Generator[Query, Any, list[Candidate]]:
        """Try texts, and keep the strongest that the constraints accept: of equals the first.

        Returns:
            The texts that were answered, accepted or not: as many as the budget allowed.
        """
        new = score_candidates(texts, (yield Query(texts)), self.objective)
        better = [f for f in new if f.score > self.best.score]
        self.best = next(iter(self.strongest(better, 1)), self.best)
        return new

    def strongest(self, tried: Iterable[Candidate], number: int) -> list[Candidate]:
        """The strongest texts that the constraints accept; of equals the first. Judges are asked no further."""
        ranked = sorted(tried, key=lambda f: f.score, reverse=True)  # stable
        accepted = (
            f
            for f in ranked
            if self.constraints.accepts(self.clean.text, self.clean.answer, f.text, f.answer, self.label)
        )
        return list(islice(accepted, number))


def start_search(text: AttackedText, recipe: Recipe, label: Label) -> Generator[Query, Any, SearchState]:
    """Ask about the clean text, and set out from it."""
    (answer,) = yield Query([text])
    objective = recipe.objective.against(answer)
    (clean,) = score_candidates([text], [answer], objective)
    return SearchState(clean, objective, recipe.constraints, label)


def score_candidates(
    texts: Sequence[AttackedText], answers: Sequence[Answer], objective: Objective
) -> list[Candidate]:
    """The texts that were answered, with their values; 0 where the victim shows no probabilities."""
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
