"""Thresholds of their own for each exit: a path of threshold vectors from strict to lax.

One threshold for all exits asks every exit for the same confidence. Exits differ: the answer of a cheap exit saves more
than that of the exit before the last, and rankings by confidence are not equally good. A vector is chosen to minimise
loss + price · cost, so each price gives one point on the best trade-off between the two. The points on the convex hull
of all outcomes are few, so they fit the noise of the rows less than the cheapest of all vectors would.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offramp.criteria import Criterion, threshold_grid

PRICES = np.geomspace(1e-3, 10.0, 49)  # of the full model's cost, in units of the loss
MOST_SHARED = 200  # thresholds for all exits that a search may start from
STEPS = 4  # from one vector of a path to the next

Vector = NDArray[np.float64]  # (exits - 1,), on turned scores: rows leave at scores of at least the threshold


@dataclass(frozen=True)
class ThresholdSearch:
    """The search for the vectors that minimise loss + price · cost on some rows.

    Args:
        criterion: the rule; its own thresholds are ignored.
        table: its scores `(examples, exits)`.
        losses: of the answer at each exit `(examples, exits)`, such as 0 if it is right and 1 if it is wrong.
        costs: of leaving at each exit `(examples, exits)`, as shares of the full model's mean cost.
    """

    criterion: Criterion
    table: NDArray[np.float64]
    losses: NDArray[np.float64]
    costs: NDArray[np.float64]

    def path(self) -> list[tuple[float, ...]]:
        """One vector for each of `PRICES`, so from strict to lax; the same number of them for any rows."""
        vector, vectors = np.full(self.turned.shape[1] - 1, self.none), []
        for price in PRICES:
            values = self.losses + price * self.costs
            shared, losses, costs = self.shared
            starts = [vector, shared[(losses + price * costs).argmin()]]
            vector = min(
                (self.descend(start, values) for start in starts), key=lambda end: self.total(end, values)
            )
            vectors.append(self.thresholds(vector))
        return vectors

    def thresholds(self, vector: Vector) -> tuple[float, ...]:
        """The rule's thresholds of a vector."""
        low, high = self.criterion.threshold_range
        turned = -vector if self.criterion.leaves_below else vector
        return tuple(float(threshold) for threshold in np.clip(turned, low, high))

    @cached_property
    def turned(self) -> NDArray[np.float64]:
        """The scores, where a larger one means leaving."""
        return -self.table if self.criterion.leaves_below else self.table

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The thresholds under which every row leaves, and no row."""
        lax, strict = threshold_grid(self.criterion, self.table, 2)[[0, -1]]
        return (-lax, -strict) if self.criterion.leaves_below else (lax, strict)

    @property
    def none(self) -> float:
        """The threshold that no row passes."""
        return float(self.ends[1])

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Rows by falling score, at each exit `(examples, exits - 1)`."""
        return np.argsort(-self.turned[:, :-1], axis=0, kind="stable")

    @cached_property
    def shared(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Vectors with one threshold for all exits `(points, exits - 1)`, and their losses and costs `(points,)`."""
        grid = threshold_grid(self.criterion, self.table, MOST_SHARED)
        turned = -grid if self.criterion.leaves_below else grid
        vectors = np.repeat(turned[:, None], self.turned.shape[1] - 1, axis=1)
        totals = [[self.total(vector, values) for vector in vectors] for values in (self.losses, self.costs)]
        return vectors, np.array(totals[0]), np.array(totals[1])

    def exits(self, vector: Vector) -> NDArray[np.intp]:
        """The exit at which each row leaves `(examples,)`."""
        leave = np.ones(self.turned.shape, dtype=bool)
        leave[:, :-1] = self.turned[:, :-1] >= vector
        return leave.argmax(axis=1)

    def total(self, vector: Vector, values: NDArray[np.float64]) -> float:
        """The sum over the rows of a value at the exit taken."""
        return float(values[np.arange(len(values)), self.exits(vector)].sum())

    def descend(self, vector: Vector, values: NDArray[np.float64]) -> Vector:
        """Choose one exit's threshold after another, each the best for the others, until none changes the total."""
        best = np.inf
        while (total := self.total(vector, values)) < best - 1e-9:
            best, vector = total, vector.copy()
            reached = np.cumprod(self.turned[:, :-1] < vector, axis=1).astype(
                bool
            )  # rows that pass an exit by
            later = values[:, -1]
            for k in reversed(range(len(vector))):
                here = np.ones(len(values), dtype=bool) if k == 0 else reached[:, k - 1]
                vector[k] = self.best_threshold(k, here, values[:, k] - later)
                later = np.where(self.turned[:, k] >= vector[k], values[:, k], later)
        return vector

    def best_threshold(self, k: int, here: NDArray[np.bool_], change: NDArray[np.float64]) -> float:
        """The threshold of exit `k` with the least sum of changes, over all distinct outcomes.

        Args:
            k: the exit, 0-based.
            here: the rows that reach it `(examples,)`.
            change: of each row's value if it leaves here instead of later `(examples,)`.
        """
        rows = self.able_to_leave(k, here)
        scores = self.turned[rows, k]
        sums = np.concatenate([[0.0], np.cumsum(change[rows])])  # after the first i rows have left
        cuts = cuts_between(scores)
        cut = int(cuts[sums[cuts].argmin()])
        return self.threshold_after(cut, scores)

    def able_to_leave(self, k: int, here: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Those of the rows at exit `k` that some threshold lets leave, by falling score."""
        rows = self.order[:, k]
        return rows[here[rows] & (self.turned[rows, k] > -np.inf)]

    def threshold_after(self, cut: int, scores: NDArray[np.float64]) -> float:
        """The threshold that the first `cut` of some falling scores pass, and no other."""
        if cut == 0:
            return self.none
        if cut == len(scores):
            return float(self.ends[0])
        above, below = scores[cut - 1], scores[cut]
        middle = above / 2 + below / 2  # far from float noise
        return float(above if self.criterion.whole or not below < middle else middle)


def cuts_between(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many of some falling scores may pass a threshold: equal scores pass together."""
    return np.concatenate([[0], np.flatnonzero(scores[1:] != scores[:-1]) + 1, [len(scores)]])[
        : 1 + len(scores)
    ]


def in_small_steps(
    criterion: Criterion, table: NDArray[np.float64], path: list[tuple[float, ...]]
) -> list[tuple[float, ...]]:
    """A path from the full model on with vectors at equal distances between its own; counts have none between them.

    A test stops at the first vector that fails. Few rows lie between the vectors of a fine path, so it stops late.
    """
    if criterion.whole:
        return path
    scores = np.ma.masked_invalid(table[:, :-1])  # without rows that never leave
    low, high = scores.min(axis=0).filled(0.0), np.nextafter(scores.max(axis=0).filled(0.0), np.inf)
    before, steps = low if criterion.leaves_below else high, []
    for vector in path:
        after = np.clip(vector, low, high)
        steps += [tuple((before + (after - before) * k / STEPS).tolist()) for k in range(1, STEPS)]
        steps.append(vector)
        before = after
    return steps
