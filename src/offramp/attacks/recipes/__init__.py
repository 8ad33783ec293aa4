"""Recipes: one file per paper. The order of `RECIPES` is the order of tables.

Comments in a recipe name the source of each choice: the *paper*, its *released code*, TextAttack's recipe, or *ours*.
"""

from __future__ import annotations

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.options import Options
from offramp.attacks.recipes.a2t import A2TExit, A2TLast
from offramp.attacks.recipes.base import Composition, Recipe
from offramp.attacks.recipes.bert_attack import BertAttackExit, BertAttackLast
from offramp.attacks.recipes.deepsloth import DeepSlothWord
from offramp.attacks.recipes.random import RandomChar, RandomMixed, RandomWords
from offramp.attacks.recipes.same import SameChar, SameMixed, SamePlus, SameWord
from offramp.attacks.recipes.slowbert import SlowBert, SlowBertTime
from offramp.attacks.recipes.textbugger import TextBuggerExit, TextBuggerLast
from offramp.attacks.recipes.textfooler import TextFoolerExit, TextFoolerLast
from offramp.attacks.recipes.waffle import WaffleA2T, WaffleTextFooler, WaffleUniversal
from offramp.attacks.victims.base import Victim

RECIPES: dict[str, type[Recipe]] = {
    "same-plus": SamePlus,
    "same-word": SameWord,
    "same-char": SameChar,
    "same-mixed": SameMixed,
    "waffle-textfooler": WaffleTextFooler,
    "waffle-a2t": WaffleA2T,
    "waffle-universal": WaffleUniversal,
    "slowbert": SlowBert,
    "slowbert-time": SlowBertTime,
    "deepsloth": DeepSlothWord,
    "textfooler-last": TextFoolerLast,
    "textfooler-exit": TextFoolerExit,
    "a2t-last": A2TLast,
    "a2t-exit": A2TExit,
    "textbugger-last": TextBuggerLast,
    "textbugger-exit": TextBuggerExit,
    "bertattack-last": BertAttackLast,
    "bertattack-exit": BertAttackExit,
    "random-word": RandomWords,
    "random-char": RandomChar,
    "random": RandomMixed,
}


def recipe_named(name: str) -> type[Recipe]:
    """Return the recipe of that name, or raise `ConfigError` with the nearest name."""
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(unknown_name("attack recipe", name, RECIPES))
    return RECIPES[name]


def compose_recipe(name: str, victim: Victim, options: Options) -> Composition:
    """Compose the recipe of that name for a victim.

    Raises:
        ConfigError: an unknown recipe, or a recipe that needs exit layers that the victim does not show.
        ConfigError, DataError: see `Recipe.compose`.
    """
    recipe = recipe_named(name)
    if not victim.layers and recipe.access != "time" and not recipe.is_universal:
        usable = (repr(n) for n, r in RECIPES.items() if r.access == "time" or r.is_universal)
        raise ConfigError(
            f"{name!r} needs the exit layer of a text, but the victim reports only seconds: use "
            f"{' or '.join(usable)}, or give FunctionVictim its exit_layers"
        )
    return recipe().compose(victim, options)
