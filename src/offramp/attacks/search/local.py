"""Searches by small steps: a beam of edited texts, greedy replacement word by word, and replacement by the clock."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator as Rng
from numpy.typing import NDArray

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.search.base import (
    Candidate,
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
from offramp.attacks.victims.ranking import Ranking

Floats = NDArray[np.float64]
Timed = Generator[Measure, Any, Floats]  # seconds (rounds, texts); whole rounds only


@dataclass(frozen=True)
class BeamSearch(Search):
    """Beam search that keeps the best text of all rounds and stops on success.

    Each round tries the edits proposed for every text of the beam in turn, and then keeps the strongest texts of
    this round. A text is stronger if it leaves at a later layer, or at the same layer with a lower loss; the first
    counts among equals. Only a stronger text replaces the best one. The search checks for success (leaving at the
    last exit) after the edits of each text of the beam, and then ends.

    The victim is asked only for answers that can change the result: those of the round's strongest texts, and in the
    last round that of a text stronger than the best one. Constraints that may refuse a text for its answer need all.
    """

    beam: int = 5  # texts kept after each round
    rounds: int = 10  # most rounds; each changes one more word

    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        state = yield from start_search(text, space, label)
        beam = [state.clean]
        for number in range(1, self.rounds + 1):
            beam = [candidate for candidate in beam if space.constraints.open(candidate.text)]
            if state.best.done or not beam:
                break
            inspected: list[TokenizedText] = yield Inspect([c.text for c in beam], state.objective)
            ranking = self._ranking(state, beam[0].text, is_last=number == self.rounds)
            tried: dict[AttackedText, Candidate | None] = {}
            for tokenized in inspected:
                texts = [t for t in space.propose(tokenized, rng) if t not in tried]
                answered = yield from state.rank(texts, ranking)
                tried |= answered
                if state.best.done or len(answered) < len(texts):
                    return state.clean, state.best
            beam = state.strongest([c for c in tried.values() if c is not None], self.beam)
        return state.clean, state.best

    def _ranking(self, state: SearchState, text: AttackedText, *, is_last: bool) -> Ranking | None:
        """The places of a round that changes one more word of texts like this one; None if every answer counts."""
        constraints = state.constraints
        if not (constraints.accepts_any_answer and state.objective.prefers_depth):
            return None
        if is_last or text.num_changed + 1 == constraints.budget(text):  # no round follows that needs a beam
            return Ranking.above(state.objective, state.best.score)
        return Ranking(state.objective, self.beam)


@dataclass(frozen=True)
class GreedySearch(Search):
    """Words one after another, the most important first; each gets its strongest replacement.

    A word stays if no replacement makes the text stronger. The search makes no query after success.

    Attributes:
        deletion: rank words by how strong the text is without them, with one query per word; otherwise the moves'
            own importance ranks them.
    """

    deletion: bool = True

    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        state = yield from start_search(text, space, label)
        if state.best.done:
            return state.clean, state.best
        inspected: list[TokenizedText] = yield Inspect([text], state.objective)
        for tokenized in inspected:
            order = yield from self._order(tokenized, space, rng, state)
            for word in order:
                if state.best.done or not space.constraints.open(state.best.text):
                    break
                texts = space.propose(replace(tokenized, text=state.best.text), rng, [word])
                candidates = yield from state.ask(texts)
                if len(candidates) < len(texts):
                    break
        return state.clean, state.best

    def _order(
        self, tokenized: TokenizedText, space: SearchSpace, rng: Rng, state: SearchState
    ) -> Generator[Query, Any, list[int]]:
        """The words that may change, the most important first, and among equals the first in the text."""
        allowed = space.constraints.allowed(tokenized)
        if not self.deletion:
            ranked_words = (w for m in space.moves for w in m.importance.rank(tokenized, allowed, rng))
            return list(dict.fromkeys(ranked_words))
        ranked: list[tuple[tuple[float, float], int]] = []
        for words, texts in without_each(tokenized, allowed):
            candidates = score_candidates(texts, (yield Query(texts)), state.objective)
            ranked += zip((c.score for c in candidates), words, strict=False)
            # If the budget ends here, some words stay unranked. No query is left to change them anyway.
            if len(candidates) < len(words):
                break
        return [word for _, word in sorted(ranked, key=lambda pair: (-pair[0][0], -pair[0][1], pair[1]))]


@dataclass(frozen=True)
class TimedSearch(Search):
    """Rank words by the time without them, then substitute words one by one if that takes longer.

    For each word all candidates are timed `scout` times in turn. The one with the largest median is then timed
    `confirm` times in turn with the present text, and replaces it only if a one-sided signed-rank test of the
    differences has p ≤ `alpha` divided by the largest number of such tests that the word budget allows. The search
    queries answers only at the end, for the record: those of the clean and the last text.

    Times are noisy: sometimes a text that leaves at the same exit takes twice as long. So a single timing never
    decides. Candidates and the present text take turns, so a slowdown of the machine affects both. The differences
    are ranked, so an outlier counts no more than any other pair.
    """

    scout: int = 3  # timings of each candidate, and of each text without a word
    confirm: int = 15  # pairs of timings that decide; the default level needs at least 12
    alpha: float = 0.05  # chance that a replacement anywhere in the text is noise

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
                texts = space.propose(replace(tokenized, text=now), rng, [word])
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
        """Words by the median time without them, the longest first: such words make the text leave."""
        ranked: list[tuple[float, int]] = []
        for words, texts in without_each(tokenized, allowed):
            times = yield from in_turn(texts, self.scout)
            if not len(times):  # the budget has ended: words without a time come last
                break
            ranked += zip((-np.median(times, axis=0)).tolist(), words, strict=True)
        timed = [word for _, word in sorted(ranked)]
        return [*timed, *allowed[len(timed) :]]

    def _accepted(self, text: AttackedText, state: SearchState) -> Generator[Query, Any, bool]:
        """Whether the constraints accept a text; its answer is queried only if they need it."""
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
