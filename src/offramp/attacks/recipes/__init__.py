"""Recipes: one file a paper."""

from __future__ import annotations

from collections.abc import Callable

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.options import Options
from offramp.attacks.recipe import Recipe
from offramp.attacks.recipes.random import random_char, random_mixed, random_word
from offramp.attacks.recipes.same import same_char, same_mixed, same_word
from offramp.attacks.victim import Victim

RECIPES: dict[str, Callable[[Victim, Options], Recipe]] = {
    "same-word": same_word,
    "same-char": same_char,
    "same-mixed": same_mixed,
    "random-word": random_word,
    "random-char": random_char,
    "random": random_mixed,
}


def make_recipe(name: str, victim: Victim, options: Options) -> Recipe:
    """The recipe of that name, ready to run on a victim.

    Raises:
        ConfigError: no such recipe, or one that means nothing for the victim's task.
    """
    if name not in RECIPES:
        raise ConfigError(unknown_name("attack recipe", name, RECIPES))
    return RECIPES[name](victim, options)
