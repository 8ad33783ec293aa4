"""Attacks that make a model leave late: SAME, and random edits as the floor. Torch is imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from offramp.attacks.text import AttackedText

if TYPE_CHECKING:
    from offramp.attacks.diff import diff_html, diff_text
    from offramp.attacks.options import Options
    from offramp.attacks.recipes import RECIPES
    from offramp.attacks.result import AttackResult
    from offramp.attacks.run import attack
    from offramp.attacks.victim import Victim

__all__ = ["RECIPES", "AttackResult", "AttackedText", "Options", "Victim", "attack", "diff_html", "diff_text"]

_HOME = {
    "RECIPES": "recipes",
    "AttackResult": "result",
    "Options": "options",
    "Victim": "victim",
    "attack": "run",
    "diff_html": "diff",
    "diff_text": "diff",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offramp.attacks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"offramp.attacks.{_HOME[name]}"), name)
