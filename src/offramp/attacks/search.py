"""Searches as generators: they yield what they ask, so that many examples are attacked side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.attacks.account import Answer, Look
from offramp.attacks.objectives import Objective
from offramp.attacks.text import AttackedText

if TYPE_CHECKING:
    from offramp.attacks.recipe import Recipe


@dataclass(frozen=True)
class Query:
    """A search asks for answers to texts."""

    texts: Sequence[AttackedText]


@dataclass(frozen=True)
class Inspect:
    """A search asks for a look at texts, with gradients of its objective where it needs them."""

    texts: Sequence[AttackedText]


@dataclass(frozen=True)
class Found:
    """A text that was tried.

    Attributes:
        text: the text.
        answer: what the model does with it.
        loss: value of the attack's objective.
    """

    text: AttackedText
    answer: Answer
    loss: float

    @property
    def score(self) -> tuple[int, float]:
        """How strong the text is: its exit layer, and among equals the lower loss. Greater is stronger."""
        return self.answer.layer, -self.loss


Steps = Generator[Query | Inspect, Any, tuple[Found, Found]]  # returns the clean text and the strongest one


class Search(ABC):
    """A way through the texts that a recipe proposes."""

    @abstractmethod
    def steps(self, text: AttackedText, recipe: Recipe, rng: np.random.Generator) -> Steps:
        """Attack one text.

        Args:
            text: the example, unchanged.
            recipe: objective, moves and constraints.
            rng: the example's own generator.

        Yields:
            `Query` and `Inspect`. What is sent back are the answers to, or looks at, the first of the
            texts: as many as the example's budget allows.

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

    def steps(self, text: AttackedText, recipe: Recipe, rng: np.random.Generator) -> Steps:
        """See `Search`."""
        answers: list[Answer] = yield Query([text])
        (clean,) = beam = _found([text], answers, recipe.objective)
        best = clean
        for _ in range(self.rounds):
            beam = [found for found in beam if recipe.constraints.open(found.text)]
            if best.answer.last or not beam:
                break
            looks: list[Look] = yield Inspect([found.text for found in beam])
            tried: dict[AttackedText, Found] = {}
            for look in looks:
                texts = [t for t in recipe.propose(look, rng) if t not in tried]
                answers = yield Query(texts)
                new = _found(texts, answers, recipe.objective)
                tried |= {found.text: found for found in new}
                best = max([best, *new], key=lambda f: f.score)  # of equals the first
                if best.answer.last or len(answers) < len(texts):
                    return clean, best
            beam = sorted(tried.values(), key=lambda f: f.score, reverse=True)[: self.beam]  # stable
        return clean, best


def _found(texts: Sequence[AttackedText], answers: Sequence[Answer], objective: Objective) -> list[Found]:
    """The texts that were answered, with their losses."""
    if not answers:
        return []
    logits = np.stack([answer.logits for answer in answers])
    losses = objective.value(logits, np.array([answer.exit for answer in answers]))
    rows = zip(texts, answers, losses.tolist(), strict=False)
    return [Found(*row) for row in rows]
