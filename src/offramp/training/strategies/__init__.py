"""Training strategies: which exit's loss reaches which parameters, and when.

A strategy runs the model on a batch and gives the losses to minimise. The library's trainer owns the optimizer, the
schedule and everything else. This package imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from offramp._core.arguments import as_python, choice
from offramp._core.errors import ConfigError, unknown_name
from offramp.training.strategies.base import ONE_PHASE, START, Moment, Phase, Strategy
from offramp.training.strategies.cosee import Cosee
from offramp.training.strategies.joint import (
    Alternating,
    EqualNorm,
    GradientEquilibrium,
    Joint,
    MultiModel,
    PCGrad,
    SelfDistill,
)
from offramp.training.strategies.phased import Mixed, TwoStage
from offramp.training.strategies.sweet import Sweet

__all__ = [
    "ONE_PHASE",
    "START",
    "STRATEGIES",
    "Alternating",
    "Cosee",
    "EqualNorm",
    "GradientEquilibrium",
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
    "make_strategy",
    "read_options",
    "strategy_class",
]

# In the order of tables: the baseline first.
STRATEGIES: dict[str, type[Strategy]] = {
    "joint": Joint,
    "multi_model": MultiModel,
    "sweet": Sweet,
    "two_stage": TwoStage,
    "alternating": Alternating,
    "self_distill": SelfDistill,
    "mixed": Mixed,
    "gradient_equilibrium": GradientEquilibrium,
    "pcgrad": PCGrad,
    "equal_norm": EqualNorm,
    "cosee": Cosee,
}


def strategy_class(name: str) -> type[Strategy]:
    """The class of a strategy, which holds the facts about it; `ConfigError` for an unknown name."""
    return STRATEGIES[choice("strategy", name, STRATEGIES)]


def make_strategy(name: str, **options: object) -> Strategy:
    """A strategy by name; `ConfigError` for an unknown name or option, or an invalid value."""
    return strategy_class(name)(**read_options(name, options))


def read_options(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The options of a strategy; text from a command line becomes a number where the option is one.

    Raises:
        ConfigError: an unknown strategy or option, or a value that is not the finite number it should be.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f"strategy_options must be values by name, got {options!r:.80}")
    parameters = signature(strategy_class(name), eval_str=True).parameters
    kinds = {option: parameter.annotation for option, parameter in parameters.items()}
    for option in options:
        if option not in kinds:
            raise ConfigError(unknown_name(f"option of strategy {name!r}", option, kinds))
    return {
        option: _number(f"{option} of {name}", value) if kinds[option] is float else as_python(value)
        for option, value in options.items()
    }


def _number(name: str, value: Any) -> float:
    value = as_python(value)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    return number
