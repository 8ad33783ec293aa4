"""The losses that strategies are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from offramp.model.base import SegmentedModel
from offramp.model.heads import exit_loss
from offramp.training.strategies.base import Inputs


def gate_loss(gate: Tensor | None, logits: Tensor, labels: Tensor) -> Tensor:
    """MSE between a learned gate and "this exit is right" (SWEET paper, LTE); zero without a gate."""
    if gate is None:
        return logits.new_zeros(())
    right = (logits.detach().argmax(dim=-1) == labels).to(gate.dtype)
    return F.mse_loss(gate.sigmoid(), right)


def head_loss(model: SegmentedModel, k: int, state: object, labels: Tensor) -> Tensor:
    """Loss of exit `k` at a state: its task loss, and its gate's if the model has gates."""
    logits, gate = model.head(k, state)
    return exit_loss(logits, labels) + gate_loss(gate, logits, labels)


def exit_losses(model: SegmentedModel, inputs: Inputs, labels: Tensor) -> list[Tensor]:
    """The losses of all exits on one graph: each reaches every layer below it."""
    state, losses = model.start(inputs), []
    for k in range(len(model.exit_layers)):
        state = model.segment(k, state)
        losses.append(head_loss(model, k, state, labels))
    return losses


def last_exit_loss(model: SegmentedModel, inputs: Inputs, labels: Tensor) -> Tensor:
    """The loss of the last exit; the other heads do not run."""
    state, exits = model.start(inputs), len(model.exit_layers)
    for k in range(exits):
        state = model.segment(k, state)
    return head_loss(model, exits - 1, state, labels)


def distill_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`T² · KL(p_teacher ‖ p_student)`, both at temperature T, the teacher without gradient.

    Logits are `(batch, classes)`. For regression, `(batch, 1)`, the mean squared difference of the two outputs
    replaces the divergence. The square of T keeps the size of the gradients (Hinton 2015).
    """
    teacher = teacher.detach()
    if student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    target = F.softmax(teacher / temperature, dim=-1)
    divergence = F.kl_div(F.log_softmax(student / temperature, dim=-1), target, reduction="batchmean")
    return temperature**2 * divergence


def weighted_sum(losses: list[Tensor], weights: list[float]) -> Tensor:
    """The sum of the exits' losses, each with its weight: a scalar."""
    stacked = torch.stack(losses)
    return (torch.tensor(weights).to(stacked) * stacked).sum()


def exit_signals(logits: Tensor, signal: str) -> Tensor:
    """Signals `(exits, batch)` in [0, 1] of logits `(exits, batch, classes)`, lower for surer answers; see `Cosee`."""
    if signal == "energy":
        return torch.sigmoid(-logits.logsumexp(dim=2))
    logs = F.log_softmax(logits, dim=2)
    if signal == "confidence":
        return 1 - logs.amax(dim=2).exp()
    return -(logs.exp() * logs).sum(dim=2) / math.log(logits.shape[2])


def weights_near_exits(signals: Tensor, draws: Sequence[float], beta: float) -> Tensor:
    """Weights `(exits, batch)` of the losses, largest at the exits where examples leave, averaged over thresholds.

    Args:
        signals: `(exits - 1, batch)`, without the last exit, which takes every example.
        draws: numbers in [0, 1], which become thresholds between the smallest and the largest signal.
        beta: how fast the weights fall with the distance in exits.

    Returns:
        Weights that sum to 1 over the exits.
    """
    exits, batch = len(signals) + 1, signals.shape[1]
    positions, last = torch.arange(exits, device=signals.device), signals.new_ones(1, batch, dtype=torch.bool)
    low, high = (signals.min(), signals.max()) if signals.numel() else (0.0, 1.0)
    weights = signals.new_zeros(exits, batch)
    for draw in draws:
        leaves = torch.cat([signals < low + draw * (high - low), last])
        taken = leaves.to(torch.int64).argmax(dim=0)
        weights = weights + torch.softmax(-beta * (positions[:, None] - taken).abs().to(signals), dim=0)
    return weights / len(draws)


def signal_margin(signals: Tensor, right: Tensor, epsilon: float) -> Tensor:
    """How far the mean signals of right answers are from lying `epsilon` below those of wrong ones: a scalar.

    Args:
        signals: `(exits, batch)`, lower for surer answers.
        right: `(exits, batch)`, whether the answers are right.
        epsilon: the margin.

    Returns:
        The mean over the exits that have right and wrong answers; 0 if none has.
    """
    both = right.any(dim=1) & (~right).any(dim=1)
    hits, misses = right[both], ~right[both]
    means = [(signals[both] * rows).sum(dim=1) / rows.sum(dim=1) for rows in (hits, misses)]
    gaps = F.relu(means[0] - means[1] + epsilon)
    return gaps.sum() / max(len(gaps), 1)
