"""Training strategies: which exit's loss reaches which parameters, and when.

A strategy takes one step: it runs the model on a batch and calls `backward` on what is to be minimised. The
optimizer, the schedule and all else are the library trainer's.
"""

from __future__ import annotations

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
    """A strategy by name; `ConfigError` for an unknown name or option."""
    if name not in STRATEGIES:
        raise ConfigError(unknown_name("strategy", name, STRATEGIES))
    try:
        return STRATEGIES[name](**options)
    except TypeError as error:
        raise ConfigError(f"strategy {name!r}: {error}") from error
