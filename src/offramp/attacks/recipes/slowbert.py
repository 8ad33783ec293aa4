"""SlowBERT: Zhang et al. 2023, "Slow-down Attacks on Input-adaptive Multi-exit BERT" (Findings of ACL 2023).

Black box: words are ranked by what deleting them does to the exit, then substituted greedily; the oracle is the
exit layer, or time alone. Marked below: the *paper* and what is *ours*; no code was released to follow.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Move, Recipe
from offramp.attacks.search.base import Search
from offramp.attacks.search.greedy import GreedySearch
from offramp.attacks.search.importance import EveryWord
from offramp.attacks.search.timed import TimedSearch
from offramp.attacks.transformations.base import CharacterChange
from offramp.attacks.transformations.lexical import SynonymWord
from offramp.attacks.transformations.lexicon import load_synonyms
from offramp.attacks.victims.base import Victim


def slowbert(victim: Victim, options: Options) -> Recipe:
    """The oracle is the exit layer."""
    # Paper: rank and substitute. Ours: equals keep the order of the text, and a word whose best replacement
    # leaves no later stays.
    return _slowbert("slowbert", GreedySearch(deletion=True), options)


def slowbert_time(victim: Victim, options: Options) -> Recipe:
    """The oracle is measured time, and nothing else is looked at until the attack is over."""
    # Paper: exits are inferred from times by an approximation of its own. Ours: repeated pairs of timings and a
    # signed-rank test, see `TimedSearch`.
    return _slowbert("slowbert-time", TimedSearch(), options)


def _slowbert(name: str, search: Search, options: Options) -> Recipe:
    return Recipe(
        name=name,
        objective=ExitDepth(),
        # Ours: half synonyms (as TextFooler's), half changes of one character.
        moves=(
            Move(EveryWord(), SynonymWord(load_synonyms(options.lexicon))),
            Move(EveryWord(), CharacterChange()),
        ),
        constraints=constraints_of(options),  # ours: SAME's budget
        search=search,
        top_n=min(options.top_n, 20),  # ours, a word
    )
