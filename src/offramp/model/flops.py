"""Count the FLOPs of a model's segments and heads on the real modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.costs import count_flops, fit_polynomial


class Countable(Protocol):
    """What counting needs of a `SegmentedModel`, which is defined above this module."""

    training: bool

    @property
    def device(self) -> torch.device: ...
    @property
    def exit_layers(self) -> tuple[int, ...]: ...
    @property
    def max_length(self) -> int: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def train(self, mode: bool = True) -> Any: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...
    def start(self, inputs: Mapping[str, Any]) -> Any: ...
    def segment(self, k: int, state: Any) -> Any: ...
    def head(self, k: int, state: Any) -> tuple[Tensor, Tensor | None]: ...


def segment_costs(model: Countable) -> NDArray[np.float64]:
    """Coefficients of the FLOPs by length `(exits, 2, 3)`, of each segment and of its head."""
    training, tracked = model.training, [p for p in model.parameters() if p.requires_grad]
    model.train(False)
    model.requires_grad_(False)  # the counter fails on tables that layers receive (DeBERTa)
    try:
        coefficients = fit_polynomial(partial(_flops_at, model), model.max_length)
    finally:
        model.train(training)
        for parameter in tracked:
            parameter.requires_grad_()
    return coefficients.reshape(len(model.exit_layers), 2, 3)


def _flops_at(model: Countable, length: int) -> NDArray[np.float64]:
    """FLOPs of segment and head for each exit `(exits · 2,)` on one text of `length` tokens."""
    ids = torch.ones(1, length, dtype=torch.long, device=model.device)
    state = model.start({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    counts: list[int] = []
    for k in range(len(model.exit_layers)):
        state, segment = count_flops(partial(model.segment, k, state))
        _, head = count_flops(partial(model.head, k, state))
        counts += (segment, head)
    return np.array(counts, dtype=np.float64)
