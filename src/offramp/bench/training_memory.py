"""How much activation memory a training step holds for its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor

from offramp.model.base import SegmentedModel
from offramp.training.strategies import Strategy


class _Ledger:
    """Bytes of distinct storages that autograd keeps alive: now, and the peak."""

    def __init__(self, ignored: set[int]) -> None:
        self.ignored = ignored
        self.held: dict[int, int] = {}
        self.now = self.peak = 0


class _Kept:
    """A saved tensor; the ledger is updated when autograd releases it."""

    def __init__(self, ledger: _Ledger, tensor: Tensor) -> None:
        self.ledger, self.tensor = ledger, tensor
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        if self.key in ledger.ignored:
            return
        ledger.held[self.key] = ledger.held.get(self.key, 0) + 1
        if ledger.held[self.key] == 1:
            ledger.now += self.size
            ledger.peak = max(ledger.peak, ledger.now)

    def __del__(self) -> None:
        if self.key in self.ledger.ignored:
            return
        self.ledger.held[self.key] -= 1
        if not self.ledger.held[self.key]:
            del self.ledger.held[self.key]
            self.ledger.now -= self.size


def peak_activation_bytes(
    model: SegmentedModel, strategy: Strategy, inputs: dict[str, Tensor], labels: Tensor
) -> int:
    """Peak bytes of activations that autograd holds during one training step, parameters not counted.

    Args:
        model: left with no gradients.
        strategy: how to step.
        inputs: `input_ids`, `attention_mask`, … `(batch, length)`.
        labels: `(batch,)`.
    """
    model.train()

    def step() -> None:
        strategy.step(model, inputs, labels, lambda loss: loss.backward())

    try:
        return peak_held_bytes(model.parameters(), step)
    finally:
        model.zero_grad(set_to_none=True)


def peak_held_bytes(parameters: Iterable[Tensor], step: Callable[[], object]) -> int:
    """Peak bytes that autograd holds while `step` runs forward and backward; the parameters are not counted."""
    ledger = _Ledger({p.untyped_storage().data_ptr() for p in parameters})
    with torch.autograd.graph.saved_tensors_hooks(partial(_Kept, ledger), attrgetter("tensor")):
        step()
    return ledger.peak
