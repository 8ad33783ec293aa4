"""Recipes: one file a paper."""

from __future__ import annotations

from collections.abc import Callable

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.options import Options
from offramp.attacks.recipes.a2t import a2t_exit, a2t_last
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.recipes.bert_attack import bertattack_exit, bertattack_last
from offramp.attacks.recipes.deepsloth import deepsloth
from offramp.attacks.recipes.random import random_char, random_mixed, random_word
from offramp.attacks.recipes.same import same_char, same_mixed, same_word
from offramp.attacks.recipes.same_plus import same_plus
from offramp.attacks.recipes.slowbert import slowbert, slowbert_time
from offramp.attacks.recipes.textbugger import textbugger_exit, textbugger_last
from offramp.attacks.recipes.textfooler import textfooler_exit, textfooler_last
from offramp.attacks.recipes.waffle import waffle_a2t, waffle_textfooler, waffle_universal
from offramp.attacks.victims.base import Victim

UNIVERSAL = "waffle-universal"
BLIND = ("slowbert-time", UNIVERSAL)  # those that need not know where a text leaves
RECIPES: dict[str, Callable[[Victim, Options], Recipe]] = {
    "same-word": same_word,
    "same-char": same_char,
    "same-mixed": same_mixed,
    "same-plus": same_plus,
    "waffle-textfooler": waffle_textfooler,
    "waffle-a2t": waffle_a2t,
    UNIVERSAL: waffle_universal,
    "slowbert": slowbert,
    "slowbert-time": slowbert_time,
    "deepsloth": deepsloth,
    "textfooler-last": textfooler_last,
    "textfooler-exit": textfooler_exit,
    "a2t-last": a2t_last,
    "a2t-exit": a2t_exit,
    "textbugger-last": textbugger_last,
    "textbugger-exit": textbugger_exit,
    "bertattack-last": bertattack_last,
    "bertattack-exit": bertattack_exit,
    "random-word": random_word,
    "random-char": random_char,
    "random": random_mixed,
}


def make_recipe(name: str, victim: Victim, options: Options) -> Recipe:
    """The recipe of that name, ready to run on a victim.

    Raises:
        ConfigError: no such recipe, one that means nothing for the victim's task, one that looks inside a
            victim that is a black box, or one that looks at layers where the victim tells none.
        DataError: a lexicon or a language model that it needs is neither there nor can be fetched.
    """
    if name not in RECIPES:
        raise ConfigError(unknown_name("attack recipe", name, RECIPES))
    if not victim.layers and name not in BLIND:
        raise ConfigError(
            f"{name!r} looks at the layer that a text leaves at, but the victim tells seconds alone: use "
            f"{' or '.join(map(repr, BLIND))}, or give FunctionVictim its exit_layers"
        )
    return RECIPES[name](victim, options)
