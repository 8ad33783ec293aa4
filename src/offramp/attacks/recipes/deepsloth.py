"""DeepSloth's objective, Hong et al. 2021 (arXiv 2010.02432), in SAME's search at the word level.

The paper attacks images with projected gradient descent; there is nothing of it for text but the loss, the sum
over the exits of the cross entropy with the uniform distribution. All else is as in `same`.
"""

from __future__ import annotations

from dataclasses import replace

from offramp.attacks.objectives.baselines import DeepSloth
from offramp.attacks.options import Options
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.recipes.same import same_word
from offramp.attacks.victims.base import Victim


def deepsloth(victim: Victim, options: Options) -> Recipe:
    """DeepSloth's loss in place of SAME's."""
    return replace(same_word(victim, options), name="deepsloth", objective=DeepSloth())
