"""A search whose only oracle is the clock: pairs of timings, and a test that decides.

Times are noisy: a text that leaves at the same exit may take twice as long now and then. So a single timing never
decides. A candidate is always timed in turn with the present text, so that a machine that slows down slows both;
the differences of the pairs are ranked (Wilcoxon's signed-rank test), so that an outlier counts no more than any
other pair.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.search.base import (
    PORTION,
    Candidate,
    Inspect,
    Measure,
    Query,
    Search,
    SearchState,
    Steps,
    score_candidates,
    start_search,
)
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import TokenizedText

Floats = NDArray[np.float64]
Timed = Generator[Measure, Any, Floats]  # seconds (rounds, texts); whole rounds only


@dataclass(frozen=True)
class TimedSearch(Search):
    """Rank words by the time without them, then substitute one word after another where that takes longer.

    For each word all candidates are timed `scout` times in turn; the one with the largest median is then timed
    `confirm` times in turn with the present text, and replaces it only if a one-sided signed-rank test of the
    differences has p ≤ `alpha` divided by the number of such tests that the word budget allows at most. Answers
    are asked for at the end alone, for the record: one each for the clean and the last text.

    Attributes:
        scout: timings of each candidate, and of each text without a word.
        confirm: pairs of timings that decide; at least 12 for the default level to be reachable.
        alpha: chance that a replacement anywhere in the text is noise.
    """

    scout: int = 3
    confirm: int = 15
    alpha: float = 0.05

    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
        hunt = yield from start_search(text, recipe, label)
        looks: list[TokenizedText] = yield Inspect([text], hunt.objective)
        now = text
        for look in looks:
            allowed = recipe.constraints.allowed(look)
            order = yield from self._rank(look, allowed)
            for word in order:
                if not recipe.constraints.open(now):
                    break
                candidates = recipe.propose(TokenizedText(now, look.ids, look.tokens), rng, [word])
                times = yield from in_turn(candidates, self.scout)
                if not len(times) or not candidates:
                    continue
                slowest = candidates[int(np.median(times, axis=0).argmax())]
                pairs = yield from in_turn([now, slowest], self.confirm)
                if slower(pairs, self.alpha / len(allowed)):
                    kept = yield from self._kept(slowest, recipe, hunt)
                    now = slowest if kept else now
        return hunt.clean, (yield from self._record(now, hunt))

    def _rank(self, look: TokenizedText, allowed: Sequence[int]) -> Generator[Measure, Any, list[int]]:
        """Words by the median time without them, the longest first: what was left out made it leave."""
        ranked: list[tuple[float, int]] = []
        for start in range(0, len(allowed), PORTION):
            words = allowed[start : start + PORTION]
            times = yield from in_turn([look.text.without(word) for word in words], self.scout)
            if not len(times):  # the budget has ended: words without a time come last
                break
            ranked += zip((-np.median(times, axis=0)).tolist(), words, strict=True)
        timed = [word for _, word in sorted(ranked)]
        return [*timed, *allowed[len(timed) :]]

    def _kept(self, text: AttackedText, recipe: Recipe, hunt: SearchState) -> Generator[Query, Any, bool]:
        """Whether the constraints accept a text; the answer is asked for only where they look at it."""
        constraints = recipe.constraints
        if constraints.keep == "nothing":
            clean = hunt.clean
            return constraints.accepts(clean.text, clean.answer, text, clean.answer, hunt.label)
        new = score_candidates([text], (yield Query([text])), hunt.objective)
        return bool(hunt.strongest(new, 1))

    def _record(self, text: AttackedText, hunt: SearchState) -> Generator[Query, Any, Candidate]:
        new = score_candidates([text], (yield Query([text])), hunt.objective)
        return new[0] if new else hunt.clean


def in_turn(texts: Sequence[AttackedText], rounds: int) -> Timed:
    """Time texts round by round, the first one moving on by one each round; whole rounds only."""
    size = len(texts)
    orders = [[(start + i) % size for i in range(size)] for start in range(rounds if size else 0)]
    seconds = yield Measure([texts[i] for order in orders for i in order])
    table = np.empty((len(seconds) // size if size else 0, size))
    for row, order in enumerate(orders[: len(table)]):
        table[row, order] = seconds[row * size : (row + 1) * size]
    return table


def slower(pairs: Floats, level: float) -> bool:
    """Whether the second of two texts takes longer: a one-sided signed-rank test over pairs `(rounds, 2)`."""
    differences = pairs[:, 1] - pairs[:, 0] if len(pairs) else np.empty(0)
    if not differences.any():
        return False
    from scipy.stats import wilcoxon

    return bool(wilcoxon(differences, alternative="greater", zero_method="zsplit").pvalue <= level)
