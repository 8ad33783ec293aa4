"""SAME with our search: at least its slowdown under the same budget of words, for a fraction of the queries.

What is kept of Chen et al. 2023 (arXiv 2305.12228) is the threat: the attacker sees all internal predictions and
the exit rule, and changes as many words as SAME may, into words that SAME may choose. All else is *ours*, and
measured against `same-word`:
1. the first-order estimate of a replacement is weak. What a new word says by itself, all exits asked, tells more:
   one short text for each of a thousand words, once for a victim (docs/decisions.md has the correlations);
2. what the changes of several words do together is guessed as a sum, fitted to every answer as it comes;
3. guesses go through the victim's own exit rule, and equals are ordered by how far their exits pass its threshold:
   SAME's loss does not know the rule;
4. the victim is asked about eight texts a round, of one word to all that the budget allows, and not after success.
"""

from __future__ import annotations

from dataclasses import replace

from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.recipes.same import same_word, vocabulary_of
from offramp.attacks.search.exit_predictor import ExitPredictor
from offramp.attacks.search.surrogate_search import SurrogateSearch
from offramp.attacks.victims.base import Victim

PROFILES = 1000  # words that are tried


def same_plus(victim: Victim, options: Options) -> Recipe:
    """SAME at the word level, with few queries.

    Four of its rounds, of eight texts, go for one of SAME's; `beam` and `top_n` mean nothing to it.
    """
    vocabulary, _ = vocabulary_of(victim)
    forecast = ExitPredictor(victim.white_box, vocabulary, PROFILES, own=victim.white_box is victim)
    search = SurrogateSearch(forecast, rounds=4 * options.rounds)
    return replace(same_word(victim, options), name="same-plus", moves=(), search=search)
