"""Attacks that make a model leave late, and the baselines they have to beat. Torch is imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from offramp.attacks.text import AttackedText

if TYPE_CHECKING:
    from offramp.attacks.bench import bench_attack
    from offramp.attacks.blackbox import EngineVictim, FunctionVictim, GreyBox
    from offramp.attacks.carry import transfer
    from offramp.attacks.diff import diff_html, diff_text
    from offramp.attacks.options import Options
    from offramp.attacks.recipes import RECIPES
    from offramp.attacks.result import AttackResult
    from offramp.attacks.run import attack
    from offramp.attacks.universal import Trigger, find_trigger
    from offramp.attacks.victim import Victim

__all__ = [
    "RECIPES",
    "AttackResult",
    "AttackedText",
    "EngineVictim",
    "FunctionVictim",
    "GreyBox",
    "Options",
    "Trigger",
    "Victim",
    "attack",
    "bench_attack",
    "diff_html",
    "diff_text",
    "find_trigger",
    "transfer",
]

_HOME = {
    "RECIPES": "recipes",
    "AttackResult": "result",
    "EngineVictim": "blackbox",
    "FunctionVictim": "blackbox",
    "GreyBox": "blackbox",
    "Options": "options",
    "Trigger": "universal",
    "Victim": "victim",
    "attack": "run",
    "bench_attack": "bench",
    "diff_html": "diff",
    "diff_text": "diff",
    "find_trigger": "universal",
    "transfer": "carry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offramp.attacks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"offramp.attacks.{_HOME[name]}"), name)
