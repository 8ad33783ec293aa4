"""Gradient surgery: scale gradients on the way down, and project conflicting ones off each other."""

from __future__ import annotations

from collections.abc import Sequence
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
        for position, gradient in enumerate(projected):
            if gradient is not None:
                before = total[position]
                total[position] = gradient if before is None else before + gradient
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
