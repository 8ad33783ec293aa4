"""Gradient surgery: scale gradients, project conflicting ones off each other, and give them equal norms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from offramp._core.seeding import generator
from offramp.backbones import BackboneState

Gradient = Sequence[Tensor | None]  # one entry per parameter; None if the loss does not reach it


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradients[0], None


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The same values, whose gradient is multiplied by `factor`."""
    return cast(Tensor, _ScaleGradient.apply(values, factor))


def scale_state(state: BackboneState, factor: float) -> BackboneState:
    """The same state, whose gradients are multiplied by `factor`.

    Tables that layers share by construction (relative positions) are scaled too: like the embeddings, they are below
    all exits.
    """

    def scaled(value: Tensor | None) -> Tensor | None:
        return value if value is None or not value.requires_grad else scale_gradient(value, factor)

    return replace(
        state,
        hidden=scale_gradient(state.hidden, factor),
        rows={name: scaled(value) for name, value in state.rows.items()},
        shared={name: scaled(value) for name, value in state.shared.items()},
    )


def projection_order(exits: int, seed: int, step: int) -> list[list[int]]:
    """For each exit, the other exits in the order in which its gradient is projected off theirs."""
    random = generator(seed, "pcgrad", step)
    return [[int(j) for j in random.permutation(exits) if j != i] for i in range(exits)]


def conflict_free_sum(gradients: Sequence[Gradient], order: Sequence[Sequence[int]]) -> list[Tensor | None]:
    """The sum of all gradients, each projected off the gradients that it conflicts with.

    Two gradients are compared over the parameters that both have: `g_i ← g_i − (g_i·g_j / |g_j|²) g_j` there,
    if `g_i·g_j < 0`, with the original `g_j`.

    Args:
        gradients: one for each exit; they do not change.
        order: for each exit, the others in the order of projection.

    Source: Yu et al. 2020, algorithm 1.
    """
    total: list[Tensor | None] = [None] * len(gradients[0])
    for own, others in zip(gradients, order, strict=True):
        projected = list(own)
        for j in others:
            _project(projected, gradients[j])
        total = [_plus(a, b) for a, b in zip(total, projected, strict=True)]
    return total


def _project(gradient: list[Tensor | None], other: Gradient) -> None:
    """Project a gradient off another if they conflict, in place."""
    pairs = zip(gradient, other, strict=True)
    both = [(position, a, b) for position, (a, b) in enumerate(pairs) if a is not None and b is not None]
    product = sum(float(torch.vdot(a.flatten(), b.flatten())) for _, a, b in both)
    if product >= 0:
        return
    length = sum(float(torch.vdot(b.flatten(), b.flatten())) for _, _, b in both)
    for position, a, b in both:
        gradient[position] = a - (product / length) * b


def equal_norm_sum(
    gradients: Iterable[Gradient], groups: Sequence[Sequence[int]], owner: float = 1.0
) -> list[Tensor | None]:
    """The sum of all gradients, in which those of one group of parameters have set norms there.

    In a group: `Σ_i (w_i m / ‖g_i‖) g_i`. The weight `w_i` is `owner` for the first exit that reaches the group (SWEET
    gives it the group alone) and 1 for the others; `m` is the sum of the norms over the sum of the weights. So the
    norms still add up to what they were. Parameters in no group get the plain sum.

    Args:
        gradients: one for each exit. Only the running sum and one of them are in memory, if they come one at a time.
        groups: positions of the parameters of each group.
        owner: the weight of the first exit. 1: all norms are equal. Without bound: the direction of SWEET's gradient.

    Source: Chen et al. 2018 (GradNorm), equation 1 with α = 0.
    """
    total: list[Tensor | None] = []
    norms: list[list[Tensor]] = [[] for _ in groups]
    for gradient in gradients:
        units = list(gradient)
        for positions, of_group in zip(groups, norms, strict=True):
            reached = {p: g for p in positions if (g := gradient[p]) is not None}
            if not reached:
                continue
            weight = 1.0 if of_group else owner
            norm = torch.nn.utils.get_total_norm(list(reached.values()))
            of_group.append(norm)
            for position, own in reached.items():  # a NaN stays one
                units[position] = own * torch.where(norm == 0, 0.0, weight / norm)
        total = units if not total else [_plus(a, b) for a, b in zip(total, units, strict=True)]
    for positions, of_group in zip(groups, norms, strict=True):
        sizes = torch.stack(of_group) if of_group else torch.zeros(1)
        weights = torch.ones_like(sizes)
        weights[0] = owner
        divisor = (weights * (sizes != 0)).sum()
        mean = sizes.sum() / torch.where(divisor == 0, 1.0, divisor)
        for position in positions:
            summed = total[position]
            total[position] = None if summed is None else summed * mean
    return total


def _plus(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    if total is None or gradient is None:
        return gradient if total is None else total
    return total + gradient


def with_gradients(loss: Tensor, parameters: Sequence[Tensor], gradients: Gradient) -> Tensor:
    """A scalar of the loss's value, whose gradients by the parameters are those given."""
    linear = [(p * g).sum() for p, g in zip(parameters, gradients, strict=True) if g is not None]
    surrogate = torch.stack(linear).sum()
    return surrogate + (loss - surrogate).detach()
