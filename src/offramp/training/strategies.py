"""Training strategies: which exit's loss reaches which parameters, and when.

A strategy takes one step: it runs the model on a batch and calls `backward` on what is to be minimised. The
optimizer, the schedule and all else are the library trainer's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp._core.errors import ConfigError, unknown_name
from offramp.model.base import SegmentedModel, exit_loss

Backward = Callable[[Tensor], None]
Inputs = Mapping[str, Tensor]


def gate_loss(gate: Tensor | None, logits: Tensor, labels: Tensor) -> Tensor:
    """MSE between a learned gate and "this exit is right" (SWEET paper, LTE); zero where there is no gate."""
    if gate is None:
        return logits.new_zeros(())
    right = (logits.detach().argmax(dim=-1) == labels).to(gate.dtype)
    return F.mse_loss(gate.sigmoid(), right)


def head_loss(model: SegmentedModel, k: int, state: object, labels: Tensor) -> Tensor:
    """Loss of exit `k` at a state: its task loss, and its gate's where the model has gates."""
    logits, gate = model.head(k, state)
    return exit_loss(logits, labels) + gate_loss(gate, logits, labels)


class Strategy(ABC):
    """One way to train all exits."""

    name: ClassVar[str]

    @abstractmethod
    def step(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, backward: Backward) -> Tensor:
        """Put the gradients of one batch into `.grad` through `backward`; returns the summed loss, detached."""


class Joint(Strategy):
    """Early-Exit: the weighted sum of all exits' losses; every exit updates all layers below it.

    Args:
        weights: `uniform` (Right Tool, Schwartz 2020) or `linear`, `i / Σi` times the number of exits, so that
            the total weight is the same (the weighting of PABEE, Zhou 2020).
    """

    name = "joint"

    def __init__(self, weights: str = "uniform") -> None:
        if weights not in ("uniform", "linear"):
            raise ConfigError(unknown_name("loss weighting", weights, ("uniform", "linear")))
        self.weights = weights

    def exit_weights(self, exits: int) -> Tensor:
        """`(exits,)`, summing to the number of exits."""
        if self.weights == "uniform":
            return torch.ones(exits)
        ranks = torch.arange(1, exits + 1, dtype=torch.float32)
        return ranks / ranks.sum() * exits

    def step(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, backward: Backward) -> Tensor:
        """One forward pass, one backward pass through everything."""
        state = model.start(inputs)
        losses = []
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            losses.append(head_loss(model, k, state, labels))
        stacked = torch.stack(losses)
        loss = (self.exit_weights(len(losses)).to(stacked) * stacked).sum()
        backward(loss)
        return loss.detach()


class Sweet(Strategy):
    """SWEET (Rotem 2023): layers `l_{i-1}+1 … l_i` and head i are updated by exit i's loss alone.

    What leaves a segment is cut from the graph, and the backward pass of a segment runs as soon as its loss is
    known: the activations kept at any time are those of one segment. What all layers share by construction
    (relative-position tables) is cut too, and so belongs to the first exit.
    """

    name = "sweet"

    def step(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, backward: Backward) -> Tensor:
        """Forward and backward, segment by segment."""
        state = model.start(inputs)
        total = torch.zeros((), device=labels.device)
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            loss = head_loss(model, k, state, labels)
            state = state.detach()
            backward(loss)
            total += loss.detach()
        return total


class MultiModel(Joint):
    """Independent classifiers (SWEET paper, "MM"): each member of a cascade is trained alone, by its own run."""

    name = "multi_model"


STRATEGIES: dict[str, type[Strategy]] = {s.name: s for s in (Joint, MultiModel, Sweet)}


def make_strategy(name: str, **options: object) -> Strategy:
    """A strategy by name; `ConfigError` for an unknown name or option."""
    if name not in STRATEGIES:
        raise ConfigError(unknown_name("strategy", name, STRATEGIES))
    try:
        return STRATEGIES[name](**options)
    except TypeError as error:
        raise ConfigError(f"strategy {name!r}: {error}") from error
