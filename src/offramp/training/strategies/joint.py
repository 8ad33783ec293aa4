"""Every exit at once: joint training, the members of a cascade, and BERxiT's alternation."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp._core.errors import ConfigError, unknown_name
from offramp.model.base import SegmentedModel
from offramp.training.strategies.base import (
    START,
    Backward,
    Inputs,
    Moment,
    Strategy,
    exit_losses,
    last_exit_loss,
)

WEIGHTS = ("uniform", "linear")


class Joint(Strategy):
    """Early-Exit: the weighted sum of all exits' losses; every exit updates all layers below it.

    Args:
        weights: `uniform` (Right Tool, Schwartz 2020) or `linear`, `i / Σi` times the number of exits, so
            that the total weight is the same (the weighting of PABEE, Zhou 2020).
    """

    name = "joint"

    def __init__(self, weights: str = "uniform") -> None:
        if weights not in WEIGHTS:
            raise ConfigError(unknown_name("loss weighting", weights, WEIGHTS))
        self.weights = weights

    def exit_weights(self, exits: int) -> Tensor:
        """`(exits,)`, summing to the number of exits."""
        if self.weights == "uniform":
            return torch.ones(exits)
        ranks = torch.arange(1, exits + 1, dtype=torch.float32)
        return ranks / ranks.sum() * exits

    def total(self, losses: list[Tensor]) -> Tensor:
        """The weighted sum of the exits' losses."""
        stacked = torch.stack(losses)
        return (self.exit_weights(len(losses)).to(stacked) * stacked).sum()

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
        """One forward pass, one backward pass through everything."""
        loss = self.total(exit_losses(model, inputs, labels))
        backward(loss)
        return loss.detach()


class MultiModel(Joint):
    """Independent classifiers (SWEET paper, "MM"): each member of a cascade is trained by its own run."""

    name = "multi_model"


class Alternating(Joint):
    """Even steps, counted from 0, minimise the last exit's loss alone, odd steps the joint loss.

    Source: BERxiT (Xin 2021), the fine-tuning strategy "alternating".
    """

    name = "alternating"

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
        """One forward and one backward pass; on even steps the other heads do not run."""
        if moment.step % 2:
            return super().step(model, inputs, labels, backward, moment)
        loss = last_exit_loss(model, inputs, labels)
        backward(loss)
        return loss.detach()
