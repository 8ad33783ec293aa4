"""A net of three exits whose gradients are worked out by hand.

    h1 = a1 ∘ x,  h2 = a2·h1,  h3 = a3·h2,  z_k = c_k·h_k,  L_k = (z_k − y)²

with x = (1, 1), y = 0, a1 = (1, 1), a2 = 2, a3 = 1/2, c1 = (1, 0), c2 = (−1, 2), c3 = (0, 1). So h1 = (1, 1),
h2 = (2, 2), h3 = (1, 1) and z = (1, 2, 1): the losses are 1, 4, 1. Their gradients:

          a1         a2   a3   c1      c2      c3
    L1    (2, 0)     –    –    (2, 2)  –       –
    L2    (−8, 16)   4    –    –       (8, 8)  –
    L3    (0, 2)     1    4    –       –       (2, 2)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from offramp.backbones import BackboneState

LABELS = torch.zeros(1)


class ToyNet(nn.Module):
    """The net of this module's docstring, behind the interface of a segmented model."""

    exit_layers = (1, 2, 3)
    kind = "regression"

    def __init__(self) -> None:
        super().__init__()
        self.a1 = nn.Parameter(torch.tensor([1.0, 1.0]))
        self.a2, self.a3 = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))
        self.c1 = nn.Parameter(torch.tensor([1.0, 0.0]))
        self.c2 = nn.Parameter(torch.tensor([-1.0, 2.0]))
        self.c3 = nn.Parameter(torch.tensor([0.0, 1.0]))

    def parameters_by_layer(self) -> list[list[nn.Parameter]]:
        return [[], [self.a1], [self.a2], [self.a3]]

    def start(self, inputs: Any) -> BackboneState:
        return BackboneState(torch.ones(1, 1, 2), torch.ones(1, 1))

    def segment(self, k: int, state: BackboneState) -> BackboneState:
        return replace(state, hidden=state.hidden * (self.a1, self.a2, self.a3)[k])

    def head(self, k: int, state: BackboneState) -> tuple[Tensor, None]:
        weights = (self.c1, self.c2, self.c3)[k]
        return (state.hidden[:, 0] * weights).sum(dim=1, keepdim=True), None


def gradients_of(net: ToyNet) -> dict[str, Any]:
    """What lies in `.grad`, as plain numbers; parameters without a gradient are left out."""
    return {name: p.grad.tolist() for name, p in net.named_parameters() if p.grad is not None}
