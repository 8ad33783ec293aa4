"""BERT-Attack: Li et al. 2020, "BERT-ATTACK: Adversarial Attack Against BERT Using BERT" (arXiv 2004.09984).

The baselines `bertattack-last` and `bertattack-exit`: words come from a masked language model, which reads what
stands around them. No package holds one, so it is a folder or a hub id (`masked_lm`).
Marked below: the *paper*, its *released code* (and TextAttack's recipe), and what is *ours*.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.baselines import Misclassification, Which
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Move, Recipe
from offramp.attacks.recipes.requirements import require_shown_probabilities
from offramp.attacks.search.greedy import GreedySearch
from offramp.attacks.search.importance import EveryWord
from offramp.attacks.transformations.masked_word import MaskedWord, load_masked_lm
from offramp.attacks.victims.base import Victim

MOST = 48
SIMILARITY = 0.2  # TextAttack: cosine of USE, at least 0.2


def bertattack_last(victim: Victim, options: Options) -> Recipe:
    """BERT-Attack against the last exit."""
    return _bertattack("bertattack-last", "last", victim, options)


def bertattack_exit(victim: Victim, options: Options) -> Recipe:
    """BERT-Attack against the exit that is taken."""
    return _bertattack("bertattack-exit", "exit", victim, options)


def _bertattack(name: str, which: Which, victim: Victim, options: Options) -> Recipe:
    require_shown_probabilities(victim)
    return Recipe(
        name=name,
        objective=Misclassification(which),
        # Paper: the 48 likeliest tokens of BERT for the unmasked text; for a word of several tokens all
        # combinations, ranked by perplexity; no stop words, no antonyms. Ours: whole words alone, for the text as it
        # stands after each change; a word of several tokens is masked as one; the judge is all that sees antonyms.
        moves=(Move(EveryWord(), MaskedWord(load_masked_lm(options.masked_lm), MOST)),),
        # Paper: at most 40 % of the words. Ours: SAME's budget; see textfooler.
        constraints=constraints_of(options),
        # Paper: importance is what masking the word does to the score; ours: deleting it, as for TextFooler.
        search=GreedySearch(deletion=True),
        top_n=min(options.top_n, MOST),
        min_similarity=SIMILARITY,
    )
