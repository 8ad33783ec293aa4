"""Our search: a small model of the victim proposes changes, and learns from every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator as Rng
from numpy.typing import NDArray

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.search.base import Inspect, PreparationCost, Search, SearchState, Steps, start_search
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.search.surrogate import AdditiveSurrogate, Array, Changes, ExitPredictor
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import TokenizedText

Edits = NDArray[np.intp]  # (edits, 2): index into the changeable words, row of the profiles


@dataclass(frozen=True)
class SurrogateSearch(Search):
    """Query a surrogate first, and the victim only for the few most promising texts.

    `AdditiveSurrogate` estimates a text's evidence after some changes, and `ExitPredictor` its exit. The
    estimate includes noise of the observed size, so a text that should leave late by a wide margin ranks before a
    text that barely should. Among equals, the text that passes the exits' thresholds by less ranks first. Each
    round grows sets of changes word by word, up to the budget, queries the victim on the best few of all sizes, and
    learns from the answers. The search ends on success or after `idle` rounds in a row without a stronger text. It
    ends at once if nothing can slow the victim down.
    """

    predictor: ExitPredictor = field(repr=False)
    rounds: int = 40
    texts: int = 8  # queries in each round
    idle: int = 15  # rounds without a stronger text after which the search ends
    tries: int = 512  # edits estimated for each size of a set
    beam: int = 8  # sets of each size that are extended
    draws: int = 4  # of the noise

    def prepare(self) -> PreparationCost:
        _ = self.predictor.profiles
        return self.prepared

    @property
    def prepared(self) -> PreparationCost:
        return self.predictor.prepared

    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        state = yield from start_search(text, space, label)
        white_box = self.predictor.victim
        policy = white_box.policy  # under which every text may leave at the first exit, except from layer 0
        at_once = self.predictor.own and policy.exit_layers[0] > 0 and policy.criterion.leaves_at_once
        if state.best.done or at_once:
            return state.clean, state.best
        inspected: list[TokenizedText] = yield Inspect([text], state.objective)
        changeable = space.constraints.allowed(inspected[0])
        edits = self._edits(text, changeable, space)
        if not len(edits):
            return state.clean, state.best
        surrogate = self._surrogate(state, changeable, len(inspected[0].ids))
        tried, idle = {text}, 0
        for _ in range(self.rounds):
            ranked = self._rank(surrogate, edits, state, rng)
            picked = self._pick(ranked, tried, state)
            if not picked or idle == self.idle:
                break
            before = state.best
            candidates = yield from state.ask(list(picked))
            if state.best.done or len(candidates) < len(picked):
                break
            tried |= set(picked)
            surrogate.learn(list(zip(picked.values(), self.predictor.evidence(candidates), strict=True)))
            idle = 0 if state.best is not before else idle + 1
        return state.clean, state.best

    def _edits(self, text: AttackedText, changeable: Sequence[int], space: SearchSpace) -> Edits:
        """All single edits, without those that the constraints refuse or that change nothing."""
        words, constraints = self.predictor.words, space.constraints
        edits = np.indices((len(changeable), len(words))).reshape(2, -1).T
        own = [self.predictor.row.get(text.words[index].casefold(), -1) for index in changeable]
        edits = edits[edits[:, 1] != np.asarray(own, dtype=np.intp)[edits[:, 0]]]
        if not constraints.selective:
            return edits
        permitted = [
            constraints.permits(text.replace(changeable[row], words[word])) for row, word in edits.tolist()
        ]
        return edits[np.asarray(permitted, dtype=bool)]

    def _surrogate(self, state: SearchState, changeable: Sequence[int], tokens: int) -> AdditiveSurrogate:
        words, predictor = state.clean.text.words, self.predictor
        rows = {index: predictor.row.get(words[index].casefold()) for index in changeable}
        profiled = {index: row for index, row in rows.items() if row is not None}
        (clean,) = predictor.evidence([state.clean])
        share = predictor.one_word_tokens / tokens
        return AdditiveSurrogate(clean, predictor.profiles, share, changeable, profiled)

    def _rank(
        self, surrogate: AdditiveSurrogate, edits: Edits, state: SearchState, rng: Rng
    ) -> list[Changes]:
        """Sets of changes of all sizes, the most promising first."""
        noise = rng.standard_normal((self.draws, *surrogate.clean.shape)) * surrogate.noise
        changeable = surrogate.changeable
        sets: list[Changes] = [()]
        points, used = surrogate.clean[None], np.zeros((1, len(changeable)), dtype=bool)
        ranked: list[tuple[float, float, float, int, Changes]] = []
        budget = state.constraints.budget(state.clean.text)
        for size in range(1, min(budget, len(changeable)) + 1):
            rows, words = edits[rng.integers(len(edits), size=self.tries)].T
            start = rng.integers(len(sets), size=len(rows))
            free = ~used[start, rows]
            rows, words, start = rows[free], words[free], start[free]
            if not len(rows):
                break
            grown = points[start] + surrogate.effects(rows, words)
            layer, excess, loss = self._predict(grown, noise, state)
            best = np.lexsort((loss, excess, -layer))[: self.beam]
            sets = [tuple(sorted((*sets[start[k]], (changeable[rows[k]], int(words[k]))))) for k in best]
            points, used = grown[best], used[start[best]]
            used[np.arange(len(best)), rows[best]] = True
            keys = zip((-layer[best]).tolist(), excess[best].tolist(), loss[best].tolist(), strict=True)
            ranked += [(*key, size, changes) for key, changes in zip(keys, sets, strict=True)]
        return [changes for *_, changes in sorted(ranked)]

    def _predict(self, points: Array, noise: Array, state: SearchState) -> tuple[Array, Array, Array]:
        """Mean exit layer and excess under the noise; if all excesses are equal, the attack's loss too."""
        predicted = self.predictor((points[:, None] + noise).reshape(-1, *points.shape[1:]))
        layer = predicted.layer
        if state.constraints.holds(state.clean.answer, state.label):
            layer = np.where(predicted.prediction == state.clean.answer.prediction, layer, 0)
        layer, excess = (v.reshape(len(points), -1).mean(1) for v in (layer, predicted.excess))
        loss = np.zeros(len(points))
        if not np.ptp(excess):
            classes = len(self.predictor.victim.model.labels)
            loss = state.objective.value(points[..., :classes], np.zeros(len(points), dtype=np.intp))
        return layer, excess, loss

    def _pick(
        self, ranked: Sequence[Changes], tried: set[AttackedText], state: SearchState
    ) -> dict[AttackedText, Changes]:
        """The first texts that are new and permitted, with their changes."""
        picked: dict[AttackedText, Changes] = {}
        for changes in ranked:
            text = state.clean.text
            for index, word in changes:
                text = text.replace(index, self.predictor.words[word])
            if text not in tried and state.constraints.permits(text):
                picked.setdefault(text, changes)
            if len(picked) == self.texts:
                break
        return picked
