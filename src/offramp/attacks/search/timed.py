"""A search whose only oracle is the clock: pairs of timings, and a test that decides.

Times are noisy: now and then a text that leaves at the same exit takes twice as long. So a single timing never
decides. A candidate is always timed in turn with the present text, so that a machine that slows down slows both. The
differences of the pairs are ranked (Wilcoxon's signed-rank test), so that an outlier counts no more than any other
pair.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator as Rng
from numpy.typing import NDArray

from offramp.attacks.constraints import Label
from offramp.attacks.search.base import (
    Inspect,
    Measure,
    Query,
    Search,
    SearchState,
    Steps,
    score_candidates,
    start_search,
    without_each,
)
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import Answer, TokenizedText

Floats = NDArray[np.float64]
Timed = Generator[Measure, Any, Floats]  # seconds (rounds, texts); whole rounds only


@dataclass(frozen=True)
class TimedSearch(Search):
    """Rank words by the time without them, then substitute words one after another where that takes longer.

    For each word all candidates are timed `scout` times in turn. The one with the largest median is then timed
    `confirm` times in turn with the present text, and replaces it only if a one-sided signed-rank test of the
    differences has p ≤ `alpha` divided by the largest number of such tests that the word budget allows. The search
    asks for answers only at the end, for the record: one each for the clean and the last text.

    Attributes:
        scout: timings of each candidate, and of each text without a word.
        confirm: pairs of timings that decide; at least 12, or the default level cannot be reached.
        alpha: chance that a replacement anywhere in the text is noise.
    """

    scout: int = 3
    confirm: int = 15
    alpha: float = 0.05

    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        state = yield from start_search(text, space, label)
        inspected: list[TokenizedText] = yield Inspect([text], state.objective)
        now = text
        for tokenized in inspected:
            allowed = space.constraints.allowed(tokenized)
            order = yield from self._rank(tokenized, allowed)
            for word in order:
                if not space.constraints.open(now):
                    break
                texts = space.propose(tokenized.with_text(now), rng, [word])
                times = yield from in_turn(texts, self.scout)
                if not len(times) or not texts:
                    continue
                slowest = texts[int(np.median(times, axis=0).argmax())]
                pairs = yield from in_turn([now, slowest], self.confirm)
                if slower(pairs, self.alpha / len(allowed)):
                    accepted = yield from self._accepted(slowest, state)
                    now = slowest if accepted else now
        candidates = score_candidates([now], (yield Query([now])), state.objective)
        return state.clean, candidates[0] if candidates else state.clean

    def _rank(self, tokenized: TokenizedText, allowed: Sequence[int]) -> Generator[Measure, Any, list[int]]:
        """Words by the median time without them, the longest first: the missing word made the text leave."""
        ranked: list[tuple[float, int]] = []
        for words, texts in without_each(tokenized, allowed):
            times = yield from in_turn(texts, self.scout)
            if not len(times):  # the budget has ended: words without a time come last
                break
            ranked += zip((-np.median(times, axis=0)).tolist(), words, strict=True)
        timed = [word for _, word in sorted(ranked)]
        return [*timed, *allowed[len(timed) :]]

    def _accepted(self, text: AttackedText, state: SearchState) -> Generator[Query, Any, bool]:
        """Whether the constraints accept a text; its answer is asked for only if they need it."""
        if state.constraints.preserve == "nothing":
            return state.accepts(text, state.clean.answer)
        answers: list[Answer] = yield Query([text])
        return any(state.accepts(text, answer) for answer in answers)


def in_turn(texts: Sequence[AttackedText], rounds: int) -> Timed:
    """Time texts round by round; each round starts one text later. Only whole rounds are returned."""
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
