"""A small model of what changed words do to every exit: each change adds its effect. Numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Changes = tuple[tuple[int, int], ...]  # pairs (word index in the text, row of the profiles)

PRIOR_ANSWERS = 4.0  # answers that the first guess of scale and noise is worth
PRIOR_NOISE = 0.7  # first guess of the noise, as a share of the spread of the words' effects


class AdditiveSurrogate:
    """Estimates the evidence of all exits after some words of one text have changed, from the answers so far.

    `z(changes) = z(text) + Σ (removed[word] + scale · share · (profile[new word] − mean profile))`: removing a word
    has an effect of its own, and the new word adds its own evidence, diluted in the text. `removed` and `scale` are
    fitted by ridge regression to all answers about the text.

    Args:
        clean: `(exits, features)` evidence of the text.
        profiles: `(words, exits, features)` evidence of each word alone.
        share: weight of a word in the text, as a share of its weight alone.
        changeable: the words of the text that may change.
        profiled: word index → row of the profiles, for words of the text that have a profile.

    Attributes:
        removed: `(changeable, exits, features)` effect of removing each word.
        scale: `(exits, features)` weight of the new words' evidence.
        noise: `(exits, features)` standard deviation of the estimate.
    """

    def __init__(
        self,
        clean: Array,
        profiles: Array,
        share: float,
        changeable: Sequence[int],
        profiled: Mapping[int, int],
    ) -> None:
        self.clean, self.changeable = clean, list(changeable)
        self.unit = share * (profiles - profiles.mean(0))
        self.spread = self.unit.std(0) + 1e-6
        self.row = {index: row for row, index in enumerate(self.changeable)}
        self.prior = np.zeros((len(self.changeable), *clean.shape))
        for index, word in profiled.items():
            self.prior[self.row[index]] = -self.unit[word]
        self.removed, self.scale, self.noise = self.prior, np.ones(clean.shape), PRIOR_NOISE * self.spread
        self._answers: list[tuple[Changes, Array]] = []

    def learn(self, answers: Sequence[tuple[Changes, Array]]) -> None:
        """Add the evidence `(exits, features)` after some changes, and fit anew."""
        self._answers += answers
        design = np.zeros((len(self._answers), len(self.changeable)))
        shift = np.zeros((len(self._answers), *self.clean.shape))
        for i, (changes, _) in enumerate(self._answers):
            for index, word in changes:
                design[i, self.row[index]] = 1
                shift[i] += self.unit[word]
        target = np.stack([answer for _, answer in self._answers]) - self.clean
        gram = design.T @ design + np.eye(len(self.changeable))
        weight = PRIOR_ANSWERS * np.square(self.spread)
        for _ in range(2):  # each given the other
            rest = target - self.scale * shift - np.tensordot(design, self.prior, 1)
            solved = np.linalg.solve(gram, design.T @ rest.reshape(len(rest), -1))
            self.removed = self.prior + solved.reshape(self.prior.shape)
            left = target - np.tensordot(design, self.removed, 1)
            self.scale = ((left * shift).sum(0) + weight) / (np.square(shift).sum(0) + weight)
        error = np.square(left - self.scale * shift).sum(0)
        self.noise = np.sqrt((error + weight * PRIOR_NOISE**2) / (len(self._answers) + PRIOR_ANSWERS))

    def effects(self, rows: NDArray[np.intp], words: NDArray[np.intp]) -> Array:
        """Effects `(n, exits, features)` of `n` changes.

        Args:
            rows: `(n,)` indices into `changeable`.
            words: `(n,)` rows of the profiles.
        """
        return self.removed[rows] + self.scale * self.unit[words]
