"""Gradient equilibrium: no layer's gradient grows with the number of exits above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp.training.strategies.base import Inputs, Moment, SingleLoss

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel


class GradientEquilibrium(SingleLoss):
    """Joint training, gradients scaled on the way down: at exit i of E, the exit's own by `1/(E-i+1)`
    and those of later exits by `(E-i)/(E-i+1)`.

    So a layer receives the mean over the exits above it; joint training gives it their sum. The heads themselves
    are not scaled, since one exit alone updates them.

    All of a segment has one factor, and Adam divides each gradient by its own size: under Adam this differs from
    joint training through gradient clipping and Adam's epsilon only. The paper trains with SGD.

    Source: Li et al. 2019 (Improved Techniques for Training Adaptive Deep Networks), "gradient equilibrium".
    """

    name = "gradient_equilibrium"
    label = "gradient equilibrium"

    def loss(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Tensor:
        """The sum of all exits' losses, whose gradients are scaled at every exit."""
        import torch

        from offramp.training.strategies.losses import head_loss
        from offramp.training.surgery import scale_state

        state = model.start(inputs)
        losses: list[Tensor] = []
        for later in reversed(range(len(model.exit_layers))):  # exits behind this one: E - i
            k = len(losses)
            state = model.segment(k, state)
            losses.append(head_loss(model, k, scale_state(state, 1 / (later + 1)), labels))
            state = scale_state(state, later / (later + 1))
        return torch.stack(losses).sum()
