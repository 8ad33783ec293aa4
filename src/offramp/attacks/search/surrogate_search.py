"""Our search: a small model of the victim says which changes to try, and learns from every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offramp.attacks.constraints.constraints import Label
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.search.additive_surrogate import AdditiveSurrogate, Array, Changes
from offramp.attacks.search.base import Inspect, PreparationCost, Search, SearchState, Steps, start_search
from offramp.attacks.search.exit_predictor import ExitPredictor
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.answers import TokenizedText

Edits = NDArray[np.intp]  # (edits, 2): index into the places that may be changed, row of the profiles


@dataclass(frozen=True)
class SurrogateSearch(Search):
    """Ask a model of the words' effects first, and the victim only about the few texts that look best.

    A text's evidence after some changes is guessed by `AdditiveSurrogate`, and where it would leave by
    `ExitPredictor`: under noise of the size that the guesses were seen to have, so that a text that should leave
    late by a wide margin comes before one that just should. Of equals the one counts that passes the exits'
    thresholds by less. Each round grows sets of changes word by word, up to the budget, asks the victim about the
    best few of all sizes, and learns from the answers. Nothing is asked after success, where some rounds in a row
    found nothing stronger, or of a victim that nothing can slow down.

    Attributes:
        forecast: profiles of the words, and the policy.
        rounds: most rounds.
        portion: texts asked about in each round.
        idle: rounds without a stronger text after which it ends.
        tries: edits guessed at for each size of a set.
        beam: sets of each size that grow further.
        draws: draws of the noise.
    """

    forecast: ExitPredictor = field(repr=False)
    rounds: int = 40
    portion: int = 8
    idle: int = 15
    tries: int = 512
    beam: int = 8
    draws: int = 4

    @property
    def prepared(self) -> PreparationCost:
        """One text for each word with a profile."""
        return self.forecast.prepared

    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`."""
        hunt = yield from start_search(text, recipe, label)
        if hunt.best.done or self.forecast.immovable:
            return hunt.clean, hunt.best
        looks: list[TokenizedText] = yield Inspect([text], hunt.objective)
        places = recipe.constraints.allowed(looks[0])
        edits = self._edits(text, places, recipe)
        if not len(edits):
            return hunt.clean, hunt.best
        effects = self._effects(hunt, places, len(looks[0].ids))
        tried, idle = {text}, 0
        for _ in range(self.rounds):
            ranked = self._guess(effects, edits, recipe.constraints.budget(text), hunt, rng)
            asked = self._pick(ranked, text, tried, recipe)
            if not asked or idle == self.idle:
                break
            before = hunt.best
            new = yield from hunt.ask(list(asked))
            if hunt.best.done or len(new) < len(asked):
                break
            tried |= set(asked)
            effects.learn(list(zip(asked.values(), self.forecast.seen(new), strict=True)))
            idle = 0 if hunt.best is not before else idle + 1
        return hunt.clean, hunt.best

    def _edits(self, text: AttackedText, places: Sequence[int], recipe: Recipe) -> Edits:
        """All single edits, without those that the constraints refuse or that change nothing."""
        words, constraints = self.forecast.words, recipe.constraints
        edits = np.indices((len(places), len(words))).reshape(2, -1).T
        own = [self.forecast.row.get(text.words[place].casefold(), -1) for place in places]
        edits = edits[edits[:, 1] != np.asarray(own, dtype=np.intp)[edits[:, 0]]]
        if not constraints.selective:
            return edits
        fits = [constraints.permits(text.replace(places[row], words[word])) for row, word in edits.tolist()]
        return edits[np.asarray(fits, dtype=bool)]

    def _effects(self, hunt: SearchState, places: Sequence[int], tokens: int) -> AdditiveSurrogate:
        """What is known before anything is tried."""
        words, forecast = hunt.clean.text.words, self.forecast
        rows = {place: forecast.row.get(words[place].casefold()) for place in places}
        known = {place: row for place, row in rows.items() if row is not None}
        (clean,) = forecast.seen([hunt.clean])
        return AdditiveSurrogate(clean, forecast.profiles, forecast.alone / tokens, places, known)

    def _guess(
        self,
        effects: AdditiveSurrogate,
        edits: Edits,
        budget: int,
        hunt: SearchState,
        rng: np.random.Generator,
    ) -> list[Changes]:
        """Sets of changes of all sizes, the most promising first."""
        noise = rng.standard_normal((self.draws, *effects.clean.shape)) * effects.noise
        sets: list[Changes] = [()]
        points, used = effects.clean[None], np.zeros((1, len(effects.places)), dtype=bool)
        ranked: list[tuple[float, float, float, int, Changes]] = []
        for size in range(1, min(budget, len(effects.places)) + 1):
            rows, words = edits[rng.integers(len(edits), size=self.tries)].T
            start = rng.integers(len(sets), size=len(rows))
            free = ~used[start, rows]
            rows, words, start = rows[free], words[free], start[free]
            if not len(rows):
                break
            grown = points[start] + effects.of(rows, words)
            layer, excess, loss = self._worth(grown, noise, hunt)
            best = np.lexsort((loss, excess, -layer))[: self.beam]
            sets = [tuple(sorted((*sets[start[k]], (effects.places[rows[k]], int(words[k]))))) for k in best]
            points, used = grown[best], used[start[best]]
            used[np.arange(len(best)), rows[best]] = True
            worth = zip(
                (-layer[best]).tolist(), excess[best].tolist(), loss[best].tolist(), sets, strict=True
            )
            ranked += [(*values, size, changes) for *values, changes in worth]
        return [changes for *_, changes in sorted(ranked)]

    def _worth(self, points: Array, noise: Array, hunt: SearchState) -> tuple[Array, Array, Array]:
        """Mean exit layer and excess under the noise; where all excesses are equal, the attack's loss too."""
        guess = self.forecast((points[:, None] + noise).reshape(-1, *points.shape[1:]))
        layer = guess.layer
        if hunt.constraints.holds(hunt.clean.answer, hunt.label):
            layer = np.where(guess.prediction == hunt.clean.answer.prediction, layer, 0)
        means = [v.reshape(len(points), -1).mean(1) for v in (layer, guess.excess)]
        loss = np.zeros(len(points))
        if not np.ptp(means[1]):
            classes = len(self.forecast.victim.model.labels)
            loss = hunt.objective.value(points[..., :classes], np.zeros(len(points), dtype=np.intp))
        return means[0], means[1], loss

    def _pick(
        self,
        ranked: Sequence[Changes],
        text: AttackedText,
        tried: set[AttackedText],
        recipe: Recipe,
    ) -> dict[AttackedText, Changes]:
        """The first texts that are new and permitted, with their changes."""
        picked: dict[AttackedText, Changes] = {}
        for changes in ranked:
            now = text
            for place, word in changes:
                now = now.replace(place, self.forecast.words[word])
            if now not in tried and recipe.constraints.permits(now):
                picked.setdefault(now, changes)
            if len(picked) == self.portion:
                break
        return picked
