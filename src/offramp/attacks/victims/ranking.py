"""Answers to the strongest of many texts. A layer that cannot change which texts these are is not run."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Evidence, divide_logits
from offramp.criteria import Memory
from offramp.criteria.base import finite_logits
from offramp.engine.policy import Policy
from offramp.engine.segments import Batch, Segments

CHUNK = 8  # texts whose deeper layers run together: a CPU gains little from more, and later chunks gain a higher bar
Rank = tuple[float, float, int]  # a score, and minus the position: the first text wins among equals


class Bounded(Protocol):
    """An objective whose value has a lower bound before all exits have run; see `Objective.least`."""

    def least(
        self, logits: NDArray[np.floating], exit: NDArray[np.integer], exits: int
    ) -> NDArray[np.float64]: ...


@dataclass
class Ranking:
    """Texts that compete for some places, in one search.

    Attributes:
        objective: gives the scores; a later exit layer comes first, then a lower value.
        number: of places.
        holders: the ranks that hold them so far, as a heap.
    """

    objective: Bounded
    number: int
    holders: list[Rank] = field(default_factory=list)
    positions: Iterator[int] = field(default_factory=lambda: count(1), repr=False)

    @classmethod
    def above(cls, objective: Bounded, score: tuple[float, float]) -> Ranking:
        """One place, for a text that is stronger than a score."""
        return cls(objective, 1, [(*score, 0)])

    def hopeful(self, rank: Rank) -> bool:
        """Whether a text of at most this rank may still get a place."""
        return len(self.holders) < self.number or rank > self.holders[0]

    def add(self, rank: Rank) -> None:
        """Let a text compete."""
        if len(self.holders) < self.number:
            heapq.heappush(self.holders, rank)
        else:
            heapq.heappushpop(self.holders, rank)


class RankedBatch:
    """One batch of texts of any number of rankings on its way through the exits.

    All texts run until they leave. Those that left late enough for a place then run through the other exits, which
    their value needs: the latest first, and among equals those with the lowest bound on their value. A text is dropped
    as soon as its exit layer and that bound rule out a place.

    Args:
        segments: the model, cut at its exits.
        policy: when it leaves.
        entries: for each row its ranking, and its position among all texts of the ranking.
    """

    def __init__(
        self, segments: Segments[Any], policy: Policy, entries: Sequence[tuple[Ranking, int]]
    ) -> None:
        self.segments, self.policy = segments, policy
        self.rankings, self.positions = zip(*entries, strict=True)
        self.exits, rows = len(segments.exit_layers), len(entries)
        self.exit = np.zeros(rows, dtype=np.intp)
        self.logits: NDArray[np.floating] | None = None  # (rows, exits, classes); filled in exit by exit
        self.gates = np.zeros((rows, self.exits), dtype=np.float32) if segments.gates else None
        self.groups: dict[Bounded, list[int]] = defaultdict(list)
        for row, ranking in enumerate(self.rankings):
            self.groups[ranking.objective].append(row)

    def run(self, batch: Batch) -> list[int]:
        """Run the batch, and return the rows that have run through all exits. The others have no place."""
        finished: list[int] = []
        for k, rows, state in reversed(list(self._leave(batch))):
            ranks = self._limits(rows, k + 1)
            strongest = sorted(range(len(rows)), key=ranks.__getitem__, reverse=True)
            for start in range(0, len(rows), CHUNK):
                chunk = np.sort(np.array(strongest[start : start + CHUNK], dtype=np.intp))
                finished += self._finish(k, rows[chunk], self._take(state, chunk, len(rows)))
        return finished

    def evidence(self, rows: list[int]) -> tuple[NDArray[np.floating], NDArray[np.float32] | None]:
        """The logits `(rows, exits, classes)`, unscaled, and the gates `(rows, exits)` of finished rows."""
        assert self.logits is not None
        return self.logits[rows], None if self.gates is None else self.gates[rows]

    def _leave(self, batch: Batch) -> Iterator[tuple[int, NDArray[np.intp], Any]]:
        """Run every row until it leaves: for each exit, its rows that may get a place, and their state."""
        rows, state = np.arange(len(self.rankings)), self.segments.start(batch)
        memory: Memory = {}
        for k in range(self.exits):
            state, evidence = self._segment(k, rows, state)
            scores, memory = self.policy.criterion.score(evidence, memory)
            leaves = self.policy.criterion.leaves(scores, k) | (k == self.exits - 1)
            self.exit[rows[leaves]] = k
            gone = np.flatnonzero(leaves)
            hopeful = gone[self._hopeful(rows[gone], k + 1)]
            if len(hopeful):
                yield k, rows[hopeful], self._take(state, hopeful, len(rows))
            stay = np.flatnonzero(~leaves)
            if not len(stay):
                return
            rows, state = rows[stay], self._take(state, stay, len(rows))
            memory = {name: values[stay] for name, values in memory.items()}

    def _finish(self, k: int, rows: NDArray[np.intp], state: Any) -> list[int]:
        """Run rows that left at exit `k` through the other exits, and return those that were not dropped."""
        for later in range(k, self.exits):
            if later > k:
                state, _ = self._segment(later, rows, state)
            hopeful = np.flatnonzero(self._hopeful(rows, later + 1))
            if not len(hopeful):
                return []
            rows, state = rows[hopeful], self._take(state, hopeful, len(rows))
        for row, rank in zip(rows, self._limits(rows, self.exits), strict=True):
            self.rankings[row].add(rank)
        return rows.tolist()

    def _take(self, state: Any, rows: NDArray[np.intp], of: int) -> Any:
        """The state of some of its rows, in order; the state itself if these are all."""
        return state if len(rows) == of else self.segments.take(state, rows)

    def _segment(self, k: int, rows: NDArray[np.intp], state: Any) -> tuple[Any, Evidence]:
        """Run a segment and keep what its exit says; the state, and the evidence with scaled logits."""
        state, evidence = self.segments.run(k, state)
        finite_logits(evidence)  # NaN would compare false with every place, and drop the row without a word
        if self.logits is None:
            shape = (len(self.rankings), self.exits, evidence.logits.shape[1])
            self.logits = np.zeros(shape, dtype=evidence.logits.dtype)
        self.logits[rows, k] = evidence.logits
        if self.gates is not None:
            self.gates[rows, k] = evidence.gate
        return state, evidence.scaled(self.policy.temperatures)

    def _hopeful(self, rows: NDArray[np.intp], run: int) -> NDArray[np.bool_]:
        """Which of the rows may still get a place, after their first `run` exits."""
        ranks = zip(rows, self._limits(rows, run), strict=True)
        return np.array([self.rankings[row].hopeful(rank) for row, rank in ranks], dtype=bool)

    def _limits(self, rows: NDArray[np.intp], run: int) -> list[Rank]:
        """The highest rank that each row may reach, by its first `run` exits; its own rank after all of them."""
        assert self.logits is not None
        logits, least = self.logits[:, :run], np.zeros(len(self.rankings))
        if self.policy.temperatures is not None:
            logits = divide_logits(logits, np.asarray(self.policy.temperatures)[:run, None])
        for objective, group in self.groups.items():
            own = np.intersect1d(group, rows)
            if len(own):
                least[own] = objective.least(logits[own], self.exit[own], self.exits)
        layers = np.asarray(self.segments.exit_layers)[self.exit]
        return [(int(layers[row]), -float(least[row]), -self.positions[row]) for row in rows]
