"""What an exit's features hold beside what its classifier reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TINY = torch.finfo(torch.float32).tiny


class ClassSpace(nn.Module):
    """The space in which a classifier reads its features, and the share of a feature that lies outside.

    With weights W `(classes, dim)` and bias b, and features h shifted by the bias to `r = h + W⁺b`, this share is
    `s = √(1 − ‖Pr‖² / ‖r‖²)`, where P projects on the rows of W. The logits are all that the projection needs:
    `Pr = W⁺z`, so `‖Pr‖² = zᵀ(WWᵀ)⁺z`. A pass therefore costs no matrix product, and adds nothing to the FLOPs, which
    count matrix products alone.

    Args:
        classifier: the last layer of an exit, with a bias.

    Source: He et al. 2025 (IJCAI, arXiv 2506.17249), the NSP score.
    """

    offset: Tensor  # W⁺b, (dim,)
    inverse: Tensor  # (WWᵀ)⁺, (classes, classes)

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        weight, bias = (value.detach().double().cpu() for value in (classifier.weight, classifier.bias))
        pseudo = torch.linalg.pinv(weight)
        self.register_buffer("offset", (pseudo @ bias).float().to(classifier.weight.device))
        self.register_buffer("inverse", (pseudo.T @ pseudo).float().to(classifier.weight.device))

    def forward(self, pooled: Tensor, logits: Tensor) -> Tensor:
        """Shares `(batch,)` in [0, 1] of pooled states `(batch, dim)` with their logits `(batch, classes)`."""
        total = (pooled.float() + self.offset).square().sum(dim=1).clamp(min=TINY)
        # Elementwise: an int8 export would round the factors of a matrix product.
        read = (logits.unsqueeze(2) * self.inverse * logits.unsqueeze(1)).sum(dim=(1, 2))
        return (1 - read / total).clamp(0, 1).sqrt()
