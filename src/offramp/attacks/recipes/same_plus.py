"""SAME with our search: at least its slowdown under the same budget of words, for a fraction of the queries.

What is kept of Chen et al. 2023 (arXiv 2305.12228) is the loss and the first-order estimate of a replacement.
All else is *ours*, and measured against `same-word`:
1. the estimate's best candidates are tried in small portions, and the search stops at the last exit at once;
2. the best replacements of several words are tried together, by estimate and by what each was seen to do;
3. texts of equal exits are ordered by the loss, so that a beam of 3 does what SAME needs 5 for;
4. once the budget of words is used up, changed words may be changed again; SAME ends there.
"""

from __future__ import annotations

from dataclasses import replace

from offramp.attacks.door import Door
from offramp.attacks.options import Options
from offramp.attacks.plus import PlusSearch
from offramp.attacks.recipe import Recipe
from offramp.attacks.recipes.same import same_word


def same_plus(victim: Door, options: Options) -> Recipe:
    """SAME at the word level, with few queries."""
    search = PlusSearch(min(options.beam, PlusSearch.beam), options.rounds)
    return replace(same_word(victim, options), name="same-plus", search=search)
