"""Training strategies: which exit's loss reaches which parameters, and when.

A strategy takes one step: it runs the model on a batch and calls `backward` on what is to be minimised. The
optimizer, the schedule and all else are the library trainer's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from offramp._core.errors import ConfigError, unknown_name
from offramp.training.strategies.base import (
    ONE_PHASE,
    START,
    Backward,
    Inputs,
    Moment,
    Phase,
    Strategy,
    exit_losses,
    gate_loss,
    head_loss,
    last_exit_loss,
)
from offramp.training.strategies.distill import SelfDistill
from offramp.training.strategies.equilibrium import GradientEquilibrium
from offramp.training.strategies.joint import Alternating, Joint, MultiModel
from offramp.training.strategies.pcgrad import PCGrad
from offramp.training.strategies.phased import Mixed, TwoStage
from offramp.training.strategies.sweet import Sweet

__all__ = [
    "ONE_PHASE",
    "START",
    "STRATEGIES",
    "Alternating",
    "Backward",
    "GradientEquilibrium",
    "Inputs",
    "Joint",
    "Mixed",
    "Moment",
    "MultiModel",
    "PCGrad",
    "Phase",
    "SelfDistill",
    "Strategy",
    "Sweet",
    "TwoStage",
    "exit_losses",
    "gate_loss",
    "head_loss",
    "last_exit_loss",
    "make_strategy",
    "read_options",
]

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        Joint,
        MultiModel,
        Sweet,
        TwoStage,
        Alternating,
        SelfDistill,
        Mixed,
        GradientEquilibrium,
        PCGrad,
    )
}


def make_strategy(name: str, **options: object) -> Strategy:
    """A strategy by name; `ConfigError` for an unknown name or option, or a value that cannot work."""
    return _class(name)(**read_options(name, options))


def read_options(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The options of a strategy, numbers as numbers: a command line gives text.

    Raises:
        ConfigError: an unknown strategy or option, or a value that is no finite number where one is due.
    """
    kinds = {option: p.annotation for option, p in signature(_class(name), eval_str=True).parameters.items()}
    for option in options:
        if option not in kinds:
            raise ConfigError(unknown_name(f"option of strategy {name!r}", option, kinds))
    return {
        option: _number(value, f"{option} of {name}") if kinds[option] is float else value
        for option, value in options.items()
    }


def _class(name: str) -> type[Strategy]:
    if name not in STRATEGIES:
        raise ConfigError(unknown_name("strategy", name, STRATEGIES))
    return STRATEGIES[name]


def _number(value: Any, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{what} must be a number, got {value!r}")
    return number
