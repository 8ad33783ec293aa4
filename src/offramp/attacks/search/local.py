"""Searches by small steps: a beam of edited texts, as in SAME, and greedy replacement word by word."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator as Rng

from offramp.attacks.constraints import Label
from offramp.attacks.search.base import (
    Candidate,
    Inspect,
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
from offramp.attacks.victims.base import TokenizedText


@dataclass(frozen=True)
class BeamSearch(Search):
    """Beam search that keeps the best text of all rounds and stops on success.

    Each round tries the edits proposed for every text of the beam in turn, and then keeps the strongest texts of
    this round. A text is stronger if it leaves at a later layer, or at the same layer with a lower loss; the first
    counts among equals. Only a stronger text replaces the best one. The search checks for success (leaving at the
    last exit) after the edits of each text of the beam, and asks nothing after it.

    Attributes:
        beam: texts kept after each round.
        rounds: most rounds; each changes one more word.
    """

    beam: int = 5
    rounds: int = 10

    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        state = yield from start_search(text, space, label)
        beam = [state.clean]
        for _ in range(self.rounds):
            beam = [candidate for candidate in beam if space.constraints.open(candidate.text)]
            if state.best.done or not beam:
                break
            inspected: list[TokenizedText] = yield Inspect([c.text for c in beam], state.objective)
            tried: dict[AttackedText, Candidate] = {}
            for tokenized in inspected:
                texts = [t for t in space.propose(tokenized, rng) if t not in tried]
                candidates = yield from state.ask(texts)
                tried |= {candidate.text: candidate for candidate in candidates}
                if state.best.done or len(candidates) < len(texts):
                    return state.clean, state.best
            beam = state.strongest(tried.values(), self.beam)
        return state.clean, state.best


@dataclass(frozen=True)
class GreedySearch(Search):
    """Words one after another, the most important first; each gets its strongest replacement.

    A word stays if no replacement makes the text stronger. Nothing is asked after success.

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
                texts = space.propose(tokenized.with_text(state.best.text), rng, [word])
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
            # If the budget ends here, some words stay unranked: no query is left to change them with either.
            if len(candidates) < len(words):
                break
        return [word for _, word in sorted(ranked, key=lambda pair: (-pair[0][0], -pair[0][1], pair[1]))]
