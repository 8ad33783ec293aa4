"""From a YAML file to a plan: a sweep that trains models, or a study that attacks them."""

from __future__ import annotations

from pathlib import Path

from offramp.studies.attacks.plan import is_attack_plan, make_attack_plan
from offramp.studies.grid import Plan
from offramp.studies.plan_models import read_keys
from offramp.studies.training.plan import make_sweep


def read_plan(path: str | Path) -> Plan:
    """The plan in a YAML file; see `SweepKeys` and `AttackStudyKeys` for its keys.

    Raises:
        ConfigError: a file that is no YAML, an unknown key, a value that cannot work, or models or learning rates
            that do not exist yet.
    """
    content = read_keys(path)
    return make_attack_plan(content) if is_attack_plan(content) else make_sweep(content)
