"""SlowBERT: Zhang et al. 2023, "Slow-down Attacks on Input-adaptive Multi-exit BERT" (Findings of ACL 2023).

SlowBERT is a black-box attack: it ranks words by the effect of their deletion on the exit, then substitutes greedily.
The oracle is the exit layer, or only time. No code was released.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Composition, Recipe
from offramp.attacks.search.base import Search
from offramp.attacks.search.local import GreedySearch, TimedSearch
from offramp.attacks.search.space import EveryWord, Move
from offramp.attacks.transformations.characters import CharacterChange
from offramp.attacks.transformations.lexicon import SynonymWord, load_synonyms
from offramp.attacks.victims.base import Victim


class SlowBert(Recipe):
    """SlowBERT with the exit layer as its oracle."""

    name, label = "slowbert", "SlowBERT"
    access = "exits"

    def compose(self, victim: Victim, options: Options) -> Composition:
        # Paper: rank and substitute. Ours: equal words keep the order of the text, and a word stays if its
        # best replacement leaves no later.
        return _slowbert(GreedySearch(deletion=True), options)


class SlowBertTime(Recipe):
    """SlowBERT with measured time as its oracle; it makes no other query until the attack is over."""

    name, label = "slowbert-time", "SlowBERT by time"
    access = "time"

    def compose(self, victim: Victim, options: Options) -> Composition:
        # Paper: exits are inferred from times by an approximation. Ours: repeated pairs of timings and a
        # signed-rank test, see `TimedSearch`.
        return _slowbert(TimedSearch(), options)


def _slowbert(search: Search, options: Options) -> Composition:
    return Composition(
        objective=ExitDepth(),
        # Ours: half synonyms (as TextFooler's), half changes of one character.
        moves=(
            Move(EveryWord(), SynonymWord(load_synonyms(options.lexicon))),
            Move(EveryWord(), CharacterChange()),
        ),
        constraints=constraints_of(options),  # ours: SAME's budget
        search=search,
        top_n=min(options.top_n, 20),  # ours, per word
    )
