"""TextFooler: Jin et al. 2020, "Is BERT Really Robust?" (arXiv 1907.11932), here with any objective.

WAFFLE uses the search (`waffle-textfooler`). With accuracy objectives it gives two baselines: `textfooler-last` attacks
the last exit, as if early exits were unknown to the attacker; `textfooler-exit` attacks the exit taken.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import Objective
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import AccuracyRecipe, Composition
from offramp.attacks.search.local import GreedySearch
from offramp.attacks.search.space import EveryWord, Move
from offramp.attacks.transformations.lexicon import SynonymWord, load_synonyms

MOST, MIN_COSINE = 50, 0.5
# TextAttack: angular similarity 0.840845, in windows of 15 words. Ours: the same angle over the whole text.
SIMILARITY = 0.878


class TextFoolerExit(AccuracyRecipe):
    """TextFooler against the exit taken."""

    name, label = "textfooler-exit", "TextFooler, exit taken"
    access = "probabilities"

    def with_objective(self, objective: Objective, options: Options) -> Composition:
        return Composition(
            # Paper: 1 − p_y, done when the prediction changes. Ours: y is the model's own clean prediction, so
            # no labels are needed; the paper skips examples that the model gets wrong.
            objective=objective,
            # Paper: 50 neighbours in counter-fitted Paragram vectors with a cosine of at least 0.7 (released code:
            # 0.5). Ours: 50-dimensional GloVe with 0.5, if WordNet and the inflection agree.
            moves=(Move(EveryWord(), SynonymWord(load_synonyms(options.lexicon), MOST, MIN_COSINE)),),
            # Paper: any number of words, same part of speech. Ours: SAME's budget, which makes attacks
            # comparable (`max_changed_words=1.0` lifts it); synonyms share a part of speech by construction.
            constraints=constraints_of(options),
            # Paper: importance is the effect of deleting the word on the score; greedy. Of several successes it takes
            # the most similar one; ours: the strongest.
            search=GreedySearch(deletion=True),
            top_n=min(options.top_n, MOST),
            min_similarity=SIMILARITY,
        )


class TextFoolerLast(TextFoolerExit):
    name, label = "textfooler-last", "TextFooler, last exit"
    attacked = "last"
