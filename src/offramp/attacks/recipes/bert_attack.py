"""BERT-Attack: Li et al. 2020, "BERT-ATTACK: Adversarial Attack Against BERT Using BERT" (arXiv 2004.09984).

The baselines `bertattack-last` and `bertattack-exit` take words from a masked language model, which reads the context.
No registry package holds such a model, so the option `masked_lm` names a folder or a hub id.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import Objective
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import AccuracyRecipe, Composition
from offramp.attacks.search.local import GreedySearch
from offramp.attacks.search.space import EveryWord, Move

MOST = 48
SIMILARITY = 0.2  # TextAttack: cosine of USE, at least 0.2


class BertAttackExit(AccuracyRecipe):
    """BERT-Attack against the exit taken."""

    name, label = "bertattack-exit", "BERT-Attack, exit taken"
    access = "probabilities"

    def with_objective(self, objective: Objective, options: Options) -> Composition:
        from offramp.attacks.transformations.model_word import MaskedWord, load_masked_lm

        return Composition(
            objective=objective,
            # Paper: the 48 likeliest tokens of BERT for the unmasked text; for a word of several tokens all
            # combinations, ranked by perplexity; no stop words, no antonyms. Ours: whole words alone, for the text
            # after each change; a word of several tokens is masked as one; only the judge rejects antonyms.
            moves=(Move(EveryWord(), MaskedWord(load_masked_lm(options.masked_lm), MOST)),),
            # Paper: at most 40 % of the words. Ours: SAME's budget; see textfooler.
            constraints=constraints_of(options),
            # Paper: importance is the effect of masking the word on the score; ours: of deleting it, as for TextFooler.
            search=GreedySearch(deletion=True),
            top_n=min(options.top_n, MOST),
            min_similarity=SIMILARITY,
        )


class BertAttackLast(BertAttackExit):
    name, label = "bertattack-last", "BERT-Attack, last exit"
    attacked = "last"
