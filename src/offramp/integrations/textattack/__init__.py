"""A bridge to TextAttack: its recipes against exits, and our results in its logs. TextAttack is imported on use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offramp.integrations.textattack.attack import (
        EfficiencyGoal,
        EfficiencyGoalResult,
        VictimWrapper,
        as_dataset,
        efficiency_attack,
    )
    from offramp.integrations.textattack.library import load_textattack
    from offramp.integrations.textattack.logs import logged_results

__all__ = [
    "EfficiencyGoal",
    "EfficiencyGoalResult",
    "VictimWrapper",
    "as_dataset",
    "efficiency_attack",
    "load_textattack",
    "logged_results",
]

_HOME = {
    "EfficiencyGoal": "goal",
    "EfficiencyGoalResult": "goal",
    "VictimWrapper": "wrapper",
    "as_dataset": "recipes",
    "efficiency_attack": "recipes",
    "load_textattack": "library",
    "logged_results": "logs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offramp.integrations.textattack' has no attribute {name!r}")
    return getattr(importlib.import_module(f"offramp.integrations.textattack.{_HOME[name]}"), name)
