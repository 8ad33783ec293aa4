"""DeepSloth's objective, Hong et al. 2021 (arXiv 2010.02432), in SAME's search on words.

The paper attacks images with projected gradient descent. Only its loss applies to text: the sum over the exits of the
cross entropy with the uniform distribution. Everything else is as in `same`.
"""

from __future__ import annotations

from dataclasses import replace

from offramp.attacks.objectives.uniform import DeepSloth
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Composition, Recipe
from offramp.attacks.recipes.same import SameWord
from offramp.attacks.victims.base import Victim


class DeepSlothWord(Recipe):
    """DeepSloth's loss in place of SAME's."""

    name, label = "deepsloth", "DeepSloth's loss in SAME's search"
    access = "gradients"

    def compose(self, victim: Victim, options: Options) -> Composition:
        return replace(SameWord().compose(victim, options), objective=DeepSloth())
