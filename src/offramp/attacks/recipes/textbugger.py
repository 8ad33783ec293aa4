"""TextBugger: Li et al. 2019 (arXiv 1812.05271), as an accuracy baseline against the last exit or the one taken."""

from __future__ import annotations

from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import Objective
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import AccuracyRecipe, Composition
from offramp.attacks.search.local import GreedySearch
from offramp.attacks.search.space import EveryWord, Move
from offramp.attacks.transformations.characters import Bug
from offramp.attacks.transformations.lexicon import Misspelling, SynonymWord, load_misspellings, load_synonyms

NEIGHBOURS, EACH = 5, 5
SIMILARITY = 0.8


class TextBuggerExit(AccuracyRecipe):
    """TextBugger against the exit taken."""

    name, label = "textbugger-exit", "TextBugger, exit taken"
    access = "probabilities"

    def with_objective(self, objective: Objective, options: Options) -> Composition:
        return Composition(
            objective=objective,
            moves=(
                # Paper: insert a space, delete, swap, and replace by a look-alike; the first and last character stay.
                # Ours: a letter instead of the space, since a word stays one word here.
                Move(EveryWord(), Bug()),
                # Paper: the 5 nearest words of GloVe. Ours: only those that WordNet confirms.
                Move(EveryWord(), SynonymWord(load_synonyms(options.lexicon), NEIGHBOURS)),
                # Ours: misspellings that people make; the paper only imitates them.
                Move(EveryWord(), Misspelling(load_misspellings(options.lexicon))),
            ),
            constraints=constraints_of(options),  # paper: no limit on words; ours: SAME's, see textfooler
            search=GreedySearch(deletion=True),  # paper (black box): the same greedy search
            top_n=min(options.top_n, 3 * EACH),
            min_similarity=SIMILARITY,  # paper: USE, at least 0.8
        )


class TextBuggerLast(TextBuggerExit):
    name, label = "textbugger-last", "TextBugger, last exit"
    attacked = "last"
