"""PCGrad: where two exits pull shared layers in opposite directions, neither undoes the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp.training.strategies.base import START, Backward, Inputs, Moment, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel


class PCGrad(Strategy):
    """Joint training in which an exit's gradient is projected off those that it conflicts with.

    Gradients are compared over the parameters that both exits reach: the layers below the earlier one. A step
    is one forward pass and a backward pass for each exit, whose gradients are kept; the model is not copied.

    Source: Yu et al. 2020 (Gradient Surgery for Multi-Task Learning), algorithm 1.
    """

    name = "pcgrad"
    label = "pcgrad"

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
        """Seed and step draw the order of the projections, so that a resumed run repeats it."""
        import torch

        from offramp.training.strategies.losses import exit_losses
        from offramp.training.surgery import conflict_free_sum, projection_order

        parameters = [p for p in model.parameters() if p.requires_grad]
        losses = exit_losses(model, inputs, labels)
        gradients = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses
        ]
        summed = conflict_free_sum(gradients, projection_order(len(losses), moment.seed, moment.step))
        # A linear function whose gradient is the sum: `backward` then scales and stores it like any other.
        linear = [(p * g).sum() for p, g in zip(parameters, summed, strict=True) if g is not None]
        backward(torch.stack(linear).sum())
        return torch.stack(losses).sum().detach()
