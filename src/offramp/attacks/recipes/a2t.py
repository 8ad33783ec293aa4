"""A2T: Yoo & Qi 2021, "Towards Improving Adversarial Training of NLP Models" (arXiv 2109.00544).

WAFFLE uses the search (`waffle-a2t`). With accuracy objectives it gives the baselines `a2t-last` and `a2t-exit`.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import Objective
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import AccuracyRecipe, Composition
from offramp.attacks.search.local import GreedySearch
from offramp.attacks.search.space import ByGradient, Move
from offramp.attacks.transformations.lexicon import SynonymWord, load_synonyms

MOST, MIN_COSINE = 20, 0.5
FEWEST = 4
SIMILARITY = 0.9  # paper: cosine 0.9 of DistilBERT tuned on STS-B; ours: of the independent judge


class A2TExit(AccuracyRecipe):
    """A2T against the exit taken."""

    name, label = "a2t-exit", "A2T, exit taken"
    access = "gradients"

    def with_objective(self, objective: Objective, options: Options) -> Composition:
        return Composition(
            objective=objective,  # as for TextFooler
            # Paper: importance is the gradient at the word's embedding (one backward pass instead of one query
            # per word). At most 20 counter-fitted neighbours with a cosine of at least 0.8. Ours: the synonyms of
            # TextFooler; cosines of two vector spaces cannot be compared, so its 0.5 stays.
            moves=(Move(ByGradient(), SynonymWord(load_synonyms(options.lexicon), MOST, MIN_COSINE)),),
            # Released code: at most max(4, 10 %) words; same part of speech, given by construction.
            constraints=constraints_of(options, FEWEST),
            search=GreedySearch(deletion=False),
            top_n=min(options.top_n, MOST),
            min_similarity=SIMILARITY,
        )


class A2TLast(A2TExit):
    name, label = "a2t-last", "A2T, last exit"
    attacked = "last"
