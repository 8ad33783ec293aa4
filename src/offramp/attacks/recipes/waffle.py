"""WAFFLE: Coalson et al. 2023, "BERT Lost Patience Won't Be Robust to Adversarial Slowdown".

Source: arXiv 2310.19152. Its objective, uniform predictions at every exit, inside two searches made for accuracy,
and as a universal trigger. Marked below: the *paper*, its *released code*, and what is *ours*.
"""

from __future__ import annotations

from dataclasses import replace

from offramp._core.errors import ConfigError
from offramp.attacks.constraints.constraints import constraints_of
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.objectives.baselines import Uniform
from offramp.attacks.options import Options
from offramp.attacks.recipes.a2t import a2t
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.recipes.textfooler import textfooler
from offramp.attacks.search.universal import InFront
from offramp.attacks.victims.base import Victim

# Released code: closeness 1 − 1/(K−1) · Σ|p − 1/K| averaged over exits, which spans [0, 1] for K = 2 only; its
# success threshold is a setting. Ours: the form that spans [0, 1] for every K, done above 0.9.
OBJECTIVE = Uniform(alpha=0.9)
QUERIES = 1000  # paper: at most 1,000 queries an example


def waffle_textfooler(victim: Victim, options: Options) -> Recipe:
    """WAFFLE in TextFooler's search: the exits' distance from uniform instead of the label's probability."""
    return replace(textfooler("waffle-textfooler", OBJECTIVE, victim, options), queries=QUERIES)


def waffle_a2t(victim: Victim, options: Options) -> Recipe:
    """WAFFLE in A2T's search: words ordered by the gradient of the same objective."""
    return replace(a2t("waffle-a2t", OBJECTIVE, victim, options), queries=QUERIES)


def waffle_universal(victim: Victim, options: Options) -> Recipe:
    """The same few words in front of every text; `universal.find_trigger` finds them."""
    if not options.trigger.split():
        raise ConfigError(
            "waffle-universal needs words to put in front: give trigger='…', found on other examples with "
            "find_trigger, or let attack() search them on half of the examples"
        )
    # One query a text: whatever it does, it stays, since the attacker does not look.
    search = InFront(tuple(options.trigger.split()))
    return Recipe("waffle-universal", ExitDepth(), (), constraints_of(options), search)
