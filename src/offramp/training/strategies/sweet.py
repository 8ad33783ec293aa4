"""SWEET: layers that belong to one exit each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp.training.strategies.base import Inputs, Losses, Moment, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel


class Sweet(Strategy):
    """SWEET (Rotem 2023): layers `l_{i-1}+1 … l_i` and head i are updated only by exit i's loss.

    The state that leaves a segment is cut from the graph. The backward pass of a segment runs as soon as its loss
    is computed, so only the activations of one segment are in memory. Tables that all layers share by construction
    (relative positions) are cut too, and so belong to the first exit.
    """

    name = "sweet"
    label = "SWEET"
    cuts_graph = True
    claim = 1.1

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        from offramp.training.strategies.losses import head_loss

        state = model.start(inputs)
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            loss = head_loss(model, k, state, labels)
            state = state.detach()
            yield loss
