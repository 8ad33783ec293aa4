"""A recipe: a paper's attack, with its facts. It composes objective, moves, constraints and search for a victim."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from offramp._core.errors import ConfigError
from offramp.attacks.objectives.base import Objective, require_classes
from offramp.attacks.objectives.misclassification import AttackedExit, Misclassification
from offramp.attacks.options import Options
from offramp.attacks.search.base import Search
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.victims.base import Victim

Goal = Literal["slowdown", "misclassification"]
Access = Literal["gradients", "probabilities", "exits", "time"]


@dataclass(frozen=True, kw_only=True)
class Composition(SearchSpace):
    """An attack that is ready to run on one victim, with the limits that apply if the user sets none."""

    search: Search
    queries: int | None = None  # most forward queries per example; None for no limit
    min_similarity: float = 0.0


class Recipe(ABC):
    """A published attack, or a baseline. Tables, studies and help texts read its facts here.

    Attributes:
        name: key in `RECIPES`.
        label: name for readers.
        goal: late exits (`slowdown`) or wrong answers (`misclassification`).
        access: the access to the victim that it needs: gradients, the probabilities of all exits, the exit
            layer of a text, or only its time.
        is_baseline: whether it makes random edits, which an attack must beat under the same budget.
        claim: share of the saved compute that is lost, by the paper's claim; None for no claim.
        is_universal: whether it adds the same words to every text, without queries about the text.
        profiles_victim: whether it queries the victim on single words before the first example.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    goal: ClassVar[Goal] = "slowdown"
    access: ClassVar[Access]
    is_baseline: ClassVar[bool] = False
    claim: ClassVar[float | None] = None
    is_universal: ClassVar[bool] = False
    profiles_victim: ClassVar[bool] = False

    @abstractmethod
    def compose(self, victim: Victim, options: Options) -> Composition:
        """Compose the attack for a victim.

        Raises:
            ConfigError: the victim does not show what the recipe needs, or its task has no classes.
            DataError: a lexicon or a language model is missing and cannot be downloaded.
        """


class AccuracyRecipe(Recipe):
    """An attack on accuracy. The SAME paper (arXiv 2305.12228) claims that such attacks do not slow a model down."""

    goal = "misclassification"
    claim = 0.0
    attacked: ClassVar[AttackedExit] = "exit"  # the exit that must err: the last one, or the exit taken

    def compose(self, victim: Victim, options: Options) -> Composition:
        require_probabilities(victim)
        return self.with_objective(Misclassification(self.attacked), options)

    @abstractmethod
    def with_objective(self, objective: Objective, options: Options) -> Composition:
        """Compose the recipe's moves and search with any objective; raises the `DataError` of `compose`."""


def require_classes_inside(victim: Victim) -> None:
    """Raise `ConfigError` if the victim has no white box, or its task is regression."""
    model = victim.white_box.model
    require_classes(1 if victim.kind == "regression" else len(model.labels))


def require_probabilities(victim: Victim) -> None:
    """Raise `ConfigError` if the victim does not show class probabilities."""
    if not victim.probabilities:
        raise ConfigError(
            "this recipe scores texts by the probabilities of all exits, but the victim shows only exit "
            "layers: use 'slowbert', 'slowbert-time', or 'same-word' with a surrogate (GreyBox)"
        )
    require_classes_inside(victim)
