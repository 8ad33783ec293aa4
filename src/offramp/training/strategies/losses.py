"""The losses that strategies are made of."""

from __future__ import annotations

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
