"""Random edits: the floor that an attack has to beat under the same budget of words and queries.

The search, the constraints and the number of tries are those of SAME. What is taken away is all knowledge
of the model's inside: no gradient, no loss; words, replacements and characters are drawn, and the search
sees the exit layer alone. So it also works for regression, and shows what many tries alone achieve.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Move, Recipe
from offramp.attacks.recipes.same import vocabulary_of
from offramp.attacks.search.base import BeamSearch
from offramp.attacks.search.importance import Shuffled
from offramp.attacks.transformations.base import CharacterChange, RandomWord
from offramp.attacks.victims.base import Victim


def random_word(victim: Victim, options: Options) -> Recipe:
    """Random words become random words of the model's vocabulary (those that SAME may use)."""
    return _random("random-word", (_word_move(victim),), options)


def random_char(victim: Victim, options: Options) -> Recipe:
    """One character of a random word changes: the same kinds of change as in SAME."""
    return _random("random-char", (_character_move(),), options)


def random_mixed(victim: Victim, options: Options) -> Recipe:
    """Both, half of the tries each."""
    return _random("random", (_word_move(victim), _character_move()), options)


def _word_move(victim: Victim) -> Move:
    return Move(Shuffled(), RandomWord(vocabulary_of(victim)[0]))


def _character_move() -> Move:
    return Move(Shuffled(), CharacterChange())


def _random(name: str, moves: tuple[Move, ...], options: Options) -> Recipe:
    return Recipe(
        name=name,
        objective=ExitDepth(),
        moves=moves,
        constraints=constraints_of(options),  # as SAME
        search=BeamSearch(options.beam, options.rounds),  # as SAME, but equals stay in random order
        top_n=options.top_n,  # as SAME: the same number of queries a round
    )
