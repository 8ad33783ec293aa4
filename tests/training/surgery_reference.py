"""The slow and obvious twins of `surgery`: plain formulas over rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def equilibrium_weights(exits: int) -> Floats:
    """What exit j's gradient counts in segment s under gradient equilibrium: `(segments, exits)`.

    The factors met on the way down from exit j to segment s, multiplied; they come to `1 / (E - s + 1)` for
    every exit above, so that a segment receives a mean.
    """
    weights = np.zeros((exits, exits))
    for segment in range(1, exits + 1):
        for exit in range(segment, exits + 1):
            weight = 1 / (exits - exit + 1)
            for passed in range(segment, exit):
                weight *= (exits - passed) / (exits - passed + 1)
            weights[segment - 1, exit - 1] = weight
    return weights


def conflict_free_sum(
    gradients: Floats, reached: NDArray[np.bool_], order: Sequence[Sequence[int]]
) -> Floats:
    """The twin of `surgery.conflict_free_sum`.

    Args:
        gradients: `(exits, parameters)`, one number a parameter.
        reached: `(exits, parameters)`: whether the exit's loss reaches the parameter.
        order: for each exit, the others in the order of projection.

    Returns:
        `(parameters,)`.
    """
    total = np.zeros(gradients.shape[1])
    for i, others in enumerate(order):
        projected = gradients[i].copy()
        for j in others:
            shared = [p for p in range(len(projected)) if reached[i, p] and reached[j, p]]
            product = sum(projected[p] * gradients[j, p] for p in shared)
            if product < 0:
                length = sum(gradients[j, p] ** 2 for p in shared)
                for p in shared:
                    projected[p] -= product / length * gradients[j, p]
        total += projected
    return total


def equal_norm_sum(
    gradients: Floats, reached: NDArray[np.bool_], groups: Sequence[object], owner: float = 1.0
) -> Floats:
    """The twin of `surgery.equal_norm_sum`.

    Args:
        gradients, reached: as in `conflict_free_sum`.
        groups: of each parameter; None for the plain sum.
        owner: the weight of the first exit that reaches a group.

    Returns:
        `(parameters,)`.
    """
    total = np.where(reached, gradients, 0.0).sum(axis=0)
    for group in {group for group in groups if group is not None}:
        inside = np.array([other == group for other in groups])
        parts = [np.where(row & inside, g, 0.0) for g, row in zip(gradients, reached, strict=True)]
        first = next((i for i, row in enumerate(reached) if (row & inside).any()), None)
        norms = [float(np.sqrt((part**2).sum())) for part in parts]
        weighted = [
            (owner if i == first else 1.0, norms[i], parts[i]) for i in range(len(parts)) if norms[i] > 0
        ]
        unit = sum(norms) / (sum(weight for weight, _, _ in weighted) or 1.0)
        total[inside] = sum((w * unit / norm * part for w, norm, part in weighted), np.zeros(len(groups)))[
            inside
        ]
    return total
