"""SWEET: layers that belong to one exit each."""

from __future__ import annotations

import torch
from torch import Tensor

from offramp.model.base import SegmentedModel
from offramp.training.strategies.base import START, Backward, Inputs, Moment, Strategy, head_loss


class Sweet(Strategy):
    """SWEET (Rotem 2023): layers `l_{i-1}+1 … l_i` and head i are updated by exit i's loss alone.

    What leaves a segment is cut from the graph, and the backward pass of a segment runs as soon as its loss
    is known: the activations kept at any time are those of one segment. What all layers share by construction
    (relative-position tables) is cut too, and so belongs to the first exit.
    """

    name = "sweet"

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
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
