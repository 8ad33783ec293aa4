"""A2T: Yoo & Qi 2021, "Towards Improving Adversarial Training of NLP Models" (arXiv 2109.00544).

The second search of WAFFLE (`waffle-a2t`), and with accuracy objectives the baselines `a2t-last` and `a2t-exit`.
Marked below: the *paper*, its *released code* (TextAttack's recipe), and what is *ours*.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import Objective
from offramp.attacks.objectives.baselines import Misclassification
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Move, Recipe
from offramp.attacks.recipes.requirements import require_shown_probabilities
from offramp.attacks.search.greedy import GreedySearch
from offramp.attacks.search.importance import ByGradient
from offramp.attacks.transformations.lexical import SynonymWord
from offramp.attacks.transformations.lexicon import load_synonyms
from offramp.attacks.victims.base import Victim

MOST, MIN_COSINE = 20, 0.5
FEWEST = 4
SIMILARITY = 0.9  # paper: cosine 0.9 of DistilBERT tuned on STS-B; ours: of the independent judge


def a2t_last(victim: Victim, options: Options) -> Recipe:
    """A2T against the last exit."""
    return a2t("a2t-last", Misclassification("last"), victim, options)


def a2t_exit(victim: Victim, options: Options) -> Recipe:
    """A2T against the exit that is taken."""
    return a2t("a2t-exit", Misclassification("exit"), victim, options)


def a2t(name: str, objective: Objective, victim: Victim, options: Options) -> Recipe:
    """A2T with any objective."""
    require_shown_probabilities(victim)
    return Recipe(
        name=name,
        objective=objective,  # as TextFooler's
        # Paper: importance is the gradient at the word's embedding (one backward pass instead of one query a
        # word). At most 20 counter-fitted neighbours with a cosine of at least 0.8. Ours: the synonyms of
        # TextFooler; numbers of one vector space say nothing in another, so its 0.5 stays.
        moves=(Move(ByGradient(), SynonymWord(load_synonyms(options.lexicon), MOST, MIN_COSINE)),),
        # Released code: at most max(4, 10 %) words; same part of speech, given by construction.
        constraints=constraints_of(options, FEWEST),
        search=GreedySearch(deletion=False),
        top_n=min(options.top_n, MOST),
        min_similarity=SIMILARITY,
    )
