"""A small model of what changing words does to every exit: each change adds its effect. Numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Changes = tuple[tuple[int, int], ...]  # pairs (place in the text, row of the profiles)

WORTH = 4.0  # answers that the first guess of scale and noise is worth
DOUBT = 0.7  # first guess of the noise, as a share of the spread of the words' effects


class AdditiveSurrogate:
    """The evidence of all exits after some words of one text are changed, guessed from the answers so far.

    `z(changes) = z(text) + Σ (removed[place] + scale · share · (profile[word] − mean profile))`: taking a word out
    has an effect of its own, and what comes in adds what it says by itself, diluted in the text. `removed` and
    `scale` are fitted by ridge regression to whatever has been asked about the text.

    Args:
        clean: `(exits, features)` evidence of the text.
        profiles: `(words, exits, features)` evidence of each word by itself.
        share: weight of a word in the text, as a share of its weight by itself.
        places: the words of the text that may be changed.
        known: place → row of the profiles, where the word that stands there has a profile.
    """

    def __init__(
        self, clean: Array, profiles: Array, share: float, places: Sequence[int], known: Mapping[int, int]
    ) -> None:
        self.clean, self.places = clean, list(places)
        self.unit = share * (profiles - profiles.mean(0))
        self.spread = self.unit.std(0) + 1e-6
        self.row = {place: row for row, place in enumerate(self.places)}
        self.prior = np.zeros((len(self.places), *clean.shape))
        for place, word in known.items():
            self.prior[self.row[place]] = -self.unit[word]
        self.removed, self.scale, self.noise = self.prior, np.ones(clean.shape), DOUBT * self.spread
        self._seen: list[tuple[Changes, Array]] = []

    def learn(self, seen: Sequence[tuple[Changes, Array]]) -> None:
        """Take in what changes led to, and fit anew."""
        self._seen += seen
        design = np.zeros((len(self._seen), len(self.places)))
        shift = np.zeros((len(self._seen), *self.clean.shape))
        for i, (changes, _) in enumerate(self._seen):
            for place, word in changes:
                design[i, self.row[place]] = 1
                shift[i] += self.unit[word]
        target = np.stack([answer for _, answer in self._seen]) - self.clean
        gram = design.T @ design + np.eye(len(self.places))
        weight = WORTH * np.square(self.spread)
        for _ in range(2):  # each given the other
            rest = target - self.scale * shift - np.tensordot(design, self.prior, 1)
            solved = np.linalg.solve(gram, design.T @ rest.reshape(len(rest), -1))
            self.removed = self.prior + solved.reshape(self.prior.shape)
            left = target - np.tensordot(design, self.removed, 1)
            self.scale = ((left * shift).sum(0) + weight) / (np.square(shift).sum(0) + weight)
        error = np.square(left - self.scale * shift).sum(0)
        self.noise = np.sqrt((error + weight * DOUBT**2) / (len(self._seen) + WORTH))

    def of(self, rows: NDArray[np.intp], words: NDArray[np.intp]) -> Array:
        """Effects `(n, exits, features)` of `n` changes.

        Args:
            rows: `(n,)` indices into `places`.
            words: `(n,)` rows of the profiles.
        """
        return self.removed[rows] + self.scale * self.unit[words]
