"""Greedy search word by word: rank the words once, then give each its best replacement."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.search.base import (
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
from offramp.attacks.victims.answers import TokenizedText


@dataclass(frozen=True)
class GreedySearch(Search):
    """Words one after another, the most important first; each gets its strongest replacement.

    A word stays if no replacement makes the text stronger. Nothing is asked after success.

    Attributes:
        deletion: rank words by how strong the text is without them, with one query per word; otherwise the moves'
            own importance ranks them.
    """

    deletion: bool = True

    def steps(
        self, text: AttackedText, space: SearchSpace, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
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
        self, tokenized: TokenizedText, space: SearchSpace, rng: np.random.Generator, state: SearchState
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
