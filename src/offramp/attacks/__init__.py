"""Attacks that make a model leave late, and the baselines they must beat. Torch is imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offramp.attacks.options import Options as Options
    from offramp.attacks.recipes import RECIPES as RECIPES
    from offramp.attacks.recipes.base import Recipe as Recipe
    from offramp.attacks.result import AttackResult as AttackResult
    from offramp.attacks.run import attack as attack
    from offramp.attacks.run import transfer as transfer
    from offramp.attacks.search.universal import Trigger as Trigger
    from offramp.attacks.search.universal import find_trigger as find_trigger
    from offramp.attacks.text.attacked_text import AttackedText as AttackedText
    from offramp.attacks.text.diff import diff_html as diff_html
    from offramp.attacks.text.diff import diff_text as diff_text
    from offramp.attacks.victims.black_box import EngineVictim as EngineVictim
    from offramp.attacks.victims.black_box import FunctionVictim as FunctionVictim
    from offramp.attacks.victims.black_box import GreyBox as GreyBox
    from offramp.attacks.victims.white_box import WhiteBoxVictim as WhiteBoxVictim

_HOME = {
    "RECIPES": "recipes",
    "AttackResult": "result",
    "AttackedText": "text.attacked_text",
    "EngineVictim": "victims.black_box",
    "FunctionVictim": "victims.black_box",
    "GreyBox": "victims.black_box",
    "Options": "options",
    "Recipe": "recipes.base",
    "Trigger": "search.universal",
    "WhiteBoxVictim": "victims.white_box",
    "attack": "run",
    "diff_html": "text.diff",
    "diff_text": "text.diff",
    "find_trigger": "search.universal",
    "transfer": "run",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offramp.attacks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"offramp.attacks.{_HOME[name]}"), name)
