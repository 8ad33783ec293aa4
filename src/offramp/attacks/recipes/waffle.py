"""WAFFLE: Coalson et al. 2023, "BERT Lost Patience Won't Be Robust to Adversarial Slowdown".

Source: arXiv 2310.19152. WAFFLE's objective is uniform predictions at every exit. It runs here in two searches made
for accuracy attacks, and as a universal trigger.
"""

from __future__ import annotations

from dataclasses import replace

from offramp._core.errors import ConfigError
from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.objectives.uniform import Uniform
from offramp.attacks.options import Options
from offramp.attacks.recipes.a2t import A2TExit
from offramp.attacks.recipes.base import Composition, Recipe, require_probabilities
from offramp.attacks.recipes.textfooler import TextFoolerExit
from offramp.attacks.victims.base import Victim

# Released code: closeness 1 − 1/(K−1) · Σ|p − 1/K| averaged over exits, whose range is [0, 1] for K = 2 only; its
# success threshold is a setting. Ours: the form with range [0, 1] for every K, done above 0.9.
OBJECTIVE = Uniform(alpha=0.9)
QUERIES = 1000  # paper: at most 1,000 queries per example


class WaffleTextFooler(Recipe):
    """WAFFLE in TextFooler's search: the exits' distance from uniform replaces the label's probability."""

    name, label = "waffle-textfooler", "WAFFLE in TextFooler's search"
    access = "probabilities"

    def compose(self, victim: Victim, options: Options) -> Composition:
        require_probabilities(victim)
        return replace(TextFoolerExit().with_objective(OBJECTIVE, options), queries=QUERIES)


class WaffleA2T(Recipe):
    """WAFFLE in A2T's search: the gradient of the same objective orders the words."""

    name, label = "waffle-a2t", "WAFFLE in A2T's search"
    access = "gradients"

    def compose(self, victim: Victim, options: Options) -> Composition:
        require_probabilities(victim)
        return replace(A2TExit().with_objective(OBJECTIVE, options), queries=QUERIES)


class WaffleUniversal(Recipe):
    """The same few words in front of every text; `find_trigger` finds them by gradients."""

    name, label = "waffle-universal", "WAFFLE, universal trigger"
    access = "gradients"
    is_universal = True

    def compose(self, victim: Victim, options: Options) -> Composition:
        from offramp.attacks.search.universal import InFront

        if not options.trigger.split():
            raise ConfigError(
                "waffle-universal needs words to put in front: give trigger='…', found on other examples with "
                "find_trigger, or let attack() search for them on half of the examples"
            )
        # One query per text: the attacker never asks about the text, so the words always stay.
        search = InFront(tuple(options.trigger.split()))
        return Composition(ExitDepth(), (), constraints_of(options), search=search)
