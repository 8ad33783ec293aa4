"""Beam search over edits, as SAME uses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.search.base import Candidate, Inspect, Search, Steps, start_search
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import TokenizedText


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

    def steps(
        self, text: AttackedText, space: SearchSpace, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
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
