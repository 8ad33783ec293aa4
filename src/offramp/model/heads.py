"""The head of an exit: norm (where the backbone needs one), pooling, classifier, learned gate; and its loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from offramp._core.errors import DataError


class Pooler(nn.Module):
    """Dense + tanh on the first token, `(batch, dim)` → `(batch, dim)`; started from the pretrained pooler if any."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        return torch.tanh(self.dense(first))

    def start_from(self, pretrained: nn.Module) -> None:
        """Copy the dense layer of a library pooler (a bare Linear in ALBERT, inside a module elsewhere)."""
        dense = next(m for m in pretrained.modules() if isinstance(m, nn.Linear))
        self.dense.load_state_dict(dense.state_dict())


def first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """State of the first token that is not padding, `(batch, dim)`, for padding on either side."""
    index = mask.to(torch.int64).argmax(dim=1)
    rows = torch.arange(
        hidden.shape[0], device=hidden.device
    )  # `len` would fix the size of a batch in an export
    return hidden[rows, index]


def mean_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean state over the tokens without padding, `(batch, dim)`."""
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


class ExitHead(nn.Module):
    """Turns a hidden state `(batch, length, dim)` into logits `(batch, classes)` and a gate `(batch,)`.

    Args:
        hidden_size: width of the backbone.
        num_labels: number of classes, 1 for regression.
        pooling, gate, dropout: see `MultiExitConfig`.
        norm: a final norm of the backbone's own kind, for pre-norm encoders; identity elsewhere.
    """

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        *,
        pooling: str,
        gate: bool,
        dropout: float,
        norm: nn.Module | None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.norm = norm if norm is not None else nn.Identity()
        self.pooler = Pooler(hidden_size) if pooling == "pooler" else None
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_labels)
        self.gate = nn.Linear(hidden_size, 1) if gate else None

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """`(batch, length, dim)` and mask `(batch, length)` → `(batch, dim)`."""
        if self.pooling == "mean":
            # The norm comes before the mean: pre-norm encoders have a few huge dimensions.
            return mean_tokens(self.norm(hidden), mask)
        first = self.norm(first_token(hidden, mask))
        return first if self.pooler is None else self.pooler(first)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits `(batch, classes)` and gate logits `(batch,)` or None, both in float32."""
        return self.classify(self.dropout(self.pool(hidden, mask)))

    def classify(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits and gate of pooled states `(batch, dim)`, as `forward` returns them."""
        gate = None if self.gate is None else self.gate(pooled).squeeze(-1).float()
        return self.classifier(pooled).float(), gate


@dataclass
class MultiExitOutput(ModelOutput):
    """Output of a multi-exit model.

    Attributes:
        loss: sum of the exits' losses, if labels were given.
        logits: `(batch, classes)` float32, of the last exit, as in any classifier of the library.
        exit_logits: `(batch, exits, classes)` float32.
        gates: `(batch, exits)` gate probabilities, or None.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    exit_logits: Tensor | None = None
    gates: Tensor | None = None


def exit_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of one exit: cross-entropy over `(batch, classes)`, mean squared error for a single output.

    Args:
        logits: `(batch, classes)`.
        labels: `(batch,)` or `(batch, 1)`: class indices, or numbers for a single output.

    Raises:
        DataError: labels of another shape, or class indices that are not whole.
    """
    labels = labels.squeeze(-1) if labels.ndim == 2 else labels
    regression = logits.shape[-1] == 1
    if labels.shape != logits.shape[:1] or (labels.is_floating_point() and not regression):
        raise DataError(
            f"expected {'numbers' if regression else 'class indices'} (batch,) as labels for {len(logits)} texts, got "
            f"{labels.dtype} of the shape {tuple(labels.shape)}"
        )
    if regression:
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)
