"""A bridge to TextAttack: its recipes against exits, our results in its logs. TextAttack is imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offramp.integrations.textattack.attack import EfficiencyGoal as EfficiencyGoal
    from offramp.integrations.textattack.attack import EfficiencyGoalResult as EfficiencyGoalResult
    from offramp.integrations.textattack.attack import VictimWrapper as VictimWrapper
    from offramp.integrations.textattack.attack import as_dataset as as_dataset
    from offramp.integrations.textattack.attack import efficiency_attack as efficiency_attack
    from offramp.integrations.textattack.library import load_textattack as load_textattack
    from offramp.integrations.textattack.logs import logged_results as logged_results

_HOME = {
    "EfficiencyGoal": "attack",
    "EfficiencyGoalResult": "attack",
    "VictimWrapper": "attack",
    "as_dataset": "attack",
    "efficiency_attack": "attack",
    "load_textattack": "library",
    "logged_results": "logs",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'offramp.integrations.textattack' has no attribute {name!r}")
    return getattr(importlib.import_module(f"offramp.integrations.textattack.{_HOME[name]}"), name)
