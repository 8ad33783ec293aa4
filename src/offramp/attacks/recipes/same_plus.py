"""SAME with our search: at least SAME's slowdown under the same budget of words, for a fraction of the queries.

The threat is that of Chen et al. 2023 (arXiv 2305.12228): the attacker sees all internal predictions and the exit
rule, and changes as many words as SAME may, into words that SAME may choose. Everything else is *ours*, and measured
against `same-word`:
1. The first-order estimate of a replacement is weak. The exits' predictions for the new word alone say more: one
   short text for each of a thousand words, once per victim (docs/decisions.md has the correlations).
2. The joint effect of several changes is estimated as a sum, fitted to every answer as it arrives.
3. Estimates go through the victim's own exit rule. Texts with equal exits are ordered by how far their exits pass
   the threshold: SAME's loss ignores the rule.
4. The victim is asked about eight texts per round, with one changed word up to the budget, and not after success.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Composition, Recipe
from offramp.attacks.recipes.same import SAME_CLAIM, SameWord
from offramp.attacks.search.exit_predictor import ExitPredictor
from offramp.attacks.search.surrogate_search import SurrogateSearch
from offramp.attacks.transformations.vocabulary import Vocabulary

if TYPE_CHECKING:
    from offramp.attacks.victims.base import Victim

PROFILES = 1000  # words that are tried


class SamePlus(Recipe):
    """SAME on words, with few queries.

    Four rounds of eight texts replace one of SAME's rounds. `beam` and `top_n` have no effect.
    """

    name, label = "same-plus", "SAME with our search"
    access = "probabilities"
    claim = SAME_CLAIM
    profiles_victim = True

    def compose(self, victim: Victim, options: Options) -> Composition:
        """See `Recipe`."""
        model = victim.white_box
        predictor = ExitPredictor(model, Vocabulary.of_model(model.model), PROFILES, own=model is victim)
        search = SurrogateSearch(predictor, rounds=4 * options.rounds)
        return replace(SameWord().compose(victim, options), moves=(), search=search)
