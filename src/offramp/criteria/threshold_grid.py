"""Thresholds worth trying: one for every outcome that a rule can have on given scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CriterionError
from offramp.criteria.base import Criterion


def threshold_grid(
    criterion: Criterion, scores: NDArray[np.floating], max_points: int | None = None
) -> NDArray[np.float64]:
    """Thresholds that realise every distinct outcome of a rule, from the laxest to the strictest.

    With the first threshold all leave at exit 1 (for rules that count exits: as early as they allow), with the last
    one none leaves early; on new data too. The others lie halfway between two scores, far from float noise.

    Args:
        criterion: the rule; its own threshold is ignored.
        scores: `(examples, exits)`, from `scores`.
        max_points: keep at most so many: both ends, and evenly spaced quantiles between them; None keeps all.

    Returns:
        Thresholds `(points,)`, without repetition.

    Raises:
        CriterionError: the rule has no threshold to choose, or `max_points` is below 2.
    """
    if not criterion.tunable:
        raise CriterionError(f"{criterion.name!r} has no threshold to choose: use another rule")
    if max_points is not None and max_points < 2:
        raise CriterionError(f"expected max_points of at least 2 (both ends), got {max_points}")
    # The last exit takes every example, so its scores decide nothing. Neither does a score below an earlier one.
    decisive = np.unique(best_so_far(criterion, scores)[:, :-1])
    low, high = criterion.threshold_range
    if criterion.whole:
        grid = np.union1d(
            decisive[decisive >= low], [scores.shape[1]]
        )  # no count reaches E before the last exit
    else:
        between = decisive[:-1] / 2 + decisive[1:] / 2
        # Neighbouring floats have no middle: the upper one separates them.
        between = np.where(between > decisive[:-1], between, decisive[1:])
        grid = np.concatenate([[low], between, [high]])
    if max_points is not None and len(grid) > max_points:
        grid = grid[np.linspace(0, len(grid) - 1, max_points).round().astype(np.intp)]
    return grid[::-1].copy() if criterion.leaves_below else grid


def best_so_far(criterion: Criterion, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The score most in favour of leaving up to each exit `(examples, exits)`: monotone along the exits."""
    extreme = np.minimum if criterion.leaves_below else np.maximum
    return extreme.accumulate(np.asarray(scores, dtype=np.float64), axis=1)
