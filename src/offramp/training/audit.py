"""An audit of which exit's loss reaches which parameter, computed from real gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from offramp._core.errors import ConfigError
from offramp.model.base import SegmentedModel
from offramp.training.strategies import START, Moment, Strategy

PROBE_TOKENS = 8


def gradient_reach(
    model: SegmentedModel, strategy: Strategy, moment: Moment = START
) -> dict[str, tuple[int, ...]]:
    """The shared-parameter audit: for each parameter, the exits (0-based) whose loss reaches it.

    For each exit, it runs one training step on a small random batch with the logits of all other exits scaled by zero,
    so only that exit causes gradients. Parameters, gradients and the model's mode stay the same.

    Args:
        model: a multi-exit model or a cascade.
        strategy: the audited strategy.
        moment: the audited step and phase, for strategies whose steps differ.
    """
    vocabulary = model.embedding_tables()[0].num_embeddings
    ids = torch.randint(1, vocabulary, (2, PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}
    labels = torch.tensor([1.0, -1.0] if model.kind == "regression" else [0, 1], device=model.device)
    reach: dict[str, list[int]] = {name: [] for name, _ in model.named_parameters()}
    training = model.training
    saved = {name: p.grad for name, p in model.named_parameters()}
    model.eval()
    try:
        for exit in range(len(model.exit_layers)):
            model.zero_grad(set_to_none=True)
            muted: Any = _OneExit(model, exit)
            strategy.step(muted, inputs, labels, lambda loss: loss.backward(), moment)
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and bool(parameter.grad.abs().max() > 0):
                    reach[name].append(exit)
    finally:
        model.train(training)
        for name, parameter in model.named_parameters():
            parameter.grad = saved[name]
    return {name: tuple(exits) for name, exits in reach.items()}


class _OneExit:
    """The model with the logits of all other exits scaled by zero."""

    def __init__(self, model: SegmentedModel, exit: int) -> None:
        self.model, self.exit = model, exit

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def head(self, k: int, state: object) -> tuple[Tensor, Tensor | None]:
        logits, gate = self.model.head(k, state)
        keep = float(k == self.exit)
        return logits * keep, None if gate is None else gate * keep


def refuse_shared_layers(model: SegmentedModel, strategy: Strategy) -> None:
    """Raise `ConfigError` if a strategy that cuts the graph cannot give each exit its own layers."""
    if not strategy.cuts_graph:
        return
    shared = {name: exits for name, exits in gradient_reach(model, strategy).items() if len(exits) > 1}
    if shared:
        name, exits = next(iter(shared.items()))
        raise ConfigError(
            f"strategy {strategy.name!r} gives each exit its own layers, but this encoder reuses layers: "
            f"{len(shared)} parameters, {name} among them, would be updated by the exits at layers "
            f"{[model.exit_layers[exit] for exit in exits]}: "
            "use strategy 'joint' or 'multi_model', or an encoder without shared layers"
        )
