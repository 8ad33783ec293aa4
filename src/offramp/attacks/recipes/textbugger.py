"""TextBugger: Li et al. 2019 (arXiv 1812.05271), as an accuracy baseline against the last exit or the one taken.

Marked below: the *paper*, its *released code* (TextAttack's recipe), and what is *ours*.
"""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.baselines import Misclassification, Which
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Move, Recipe
from offramp.attacks.recipes.requirements import require_shown_probabilities
from offramp.attacks.search.greedy import GreedySearch
from offramp.attacks.search.importance import EveryWord
from offramp.attacks.transformations.lexical import Bug, Misspelling, SynonymWord
from offramp.attacks.transformations.lexicon import load_misspellings, load_synonyms
from offramp.attacks.victims.base import Victim

NEIGHBOURS, EACH = 5, 5
SIMILARITY = 0.8


def textbugger_last(victim: Victim, options: Options) -> Recipe:
    """TextBugger against the last exit."""
    return _textbugger("textbugger-last", "last", victim, options)


def textbugger_exit(victim: Victim, options: Options) -> Recipe:
    """TextBugger against the exit that is taken."""
    return _textbugger("textbugger-exit", "exit", victim, options)


def _textbugger(name: str, which: Which, victim: Victim, options: Options) -> Recipe:
    require_shown_probabilities(victim)
    synonyms = SynonymWord(load_synonyms(options.lexicon), NEIGHBOURS)
    return Recipe(
        name=name,
        objective=Misclassification(which),
        moves=(
            # Paper: insert a space, delete, swap, and replace by a look-alike, first and last character apart.
            # Ours: a letter instead of the space, since a word stays one word here.
            Move(EveryWord(), Bug()),
            # Paper: the 5 nearest words of GloVe. Ours: those that WordNet confirms.
            Move(EveryWord(), synonyms),
            # Ours: misspellings that people make; the paper only imitates them.
            Move(EveryWord(), Misspelling(load_misspellings(options.lexicon))),
        ),
        constraints=constraints_of(options),  # paper: no limit on words; ours: SAME's, see textfooler
        search=GreedySearch(deletion=True),  # paper (black box): the same order by deletion, the same greed
        top_n=min(options.top_n, 3 * EACH),
        min_similarity=SIMILARITY,  # paper: USE, at least 0.8
    )
