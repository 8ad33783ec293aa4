"""Random edits: the baseline that an attack must beat under the same budget of words and queries.

The search, the constraints and the number of tries are those of SAME. They use no knowledge of the
model's inside: no gradient, no loss. Words, replacements and characters are drawn, and the search sees only the exit
layer. So these recipes also work for regression, and show what many tries alone achieve.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Composition, Recipe
from offramp.attacks.search.local import BeamSearch
from offramp.attacks.search.space import Move, Shuffled
from offramp.attacks.transformations.base import Transformation
from offramp.attacks.transformations.characters import CharacterChange
from offramp.attacks.transformations.vocabulary import RandomWord, Vocabulary
from offramp.attacks.victims.base import Victim


class RandomMixed(Recipe):
    """Random words and random characters, with half of the tries each."""

    name, label = "random", "random words and characters"
    access = "exits"
    is_baseline = True

    def compose(self, victim: Victim, options: Options) -> Composition:
        return Composition(
            objective=ExitDepth(),
            moves=tuple(Move(Shuffled(), transformation) for transformation in self.transformations(victim)),
            constraints=constraints_of(options),  # as SAME
            search=BeamSearch(options.beam, options.rounds),  # as SAME, but equal texts stay in random order
            top_n=options.top_n,  # as SAME: the same number of queries per round
        )

    def transformations(self, victim: Victim) -> tuple[Transformation, ...]:
        """The changes to draw from."""
        return (RandomWord(Vocabulary.of_model(victim.white_box.model)), CharacterChange())


class RandomWords(RandomMixed):
    """Random words become random words of the model's vocabulary (those that SAME may use)."""

    name, label = "random-word", "random words"

    def transformations(self, victim: Victim) -> tuple[Transformation, ...]:
        return (RandomWord(Vocabulary.of_model(victim.white_box.model)),)


class RandomChar(RandomMixed):
    """One character of a random word changes: the same kinds of change as in SAME."""

    name, label = "random-char", "random characters"

    def transformations(self, victim: Victim) -> tuple[Transformation, ...]:
        return (CharacterChange(),)
