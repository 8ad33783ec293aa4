"""An attacker's model of a victim: the effect of changed words on the evidence, and the exit for that evidence."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.attacks.search.base import Candidate, PreparationCost
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import Answer, OpenVictim
from offramp.attacks.victims.memory import LastResults
from offramp.criteria import first_exit, scores

Array = NDArray[np.float64]
Changes = tuple[tuple[int, int], ...]  # pairs (word index in the text, row of the profiles)

PRIOR_ANSWERS = 4.0  # weight of the first guess of scale and noise, in answers
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
        """Add the evidence `(exits, features)` after some changes, and fit again."""
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
        """Effects `(n, exits, features)` of changes: `rows` into `changeable` and of the profiles, both `(n,)`."""
        return self.removed[rows] + self.scale * self.unit[words]


SATURATED = 1e-6  # gates closer than this to 0 or 1 are clipped


_profiles: LastResults[Array] = LastResults()


class ExitPrediction(NamedTuple):
    """The exits that evidence would take; all `(n,)`."""

    layer: NDArray[np.int64]
    excess: Array  # sum of the margins by which exits before the last pass the threshold; 0 if none does
    prediction: NDArray[np.generic]


@dataclass(frozen=True)
class ExitPredictor:
    """A white box from the attacker's side: its words' profiles, and its policy applied to estimated evidence.

    The profiles cost one short text per word, when they are first used. A victim of the same weights shares them in
    this process. They count in no example's budget.
    """

    victim: OpenVictim
    vocabulary: Vocabulary
    number: int  # of the vocabulary's words that get a profile; they are drawn once
    own: bool = True  # whether the white box is the victim itself; queries of a surrogate do not count

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words with a profile: the same for every victim with this vocabulary."""
        every = self.vocabulary.words
        if len(every) <= self.number:
            return every
        drawn = generator(0, "profiles").choice(len(every), size=self.number, replace=False)
        return tuple(every[i] for i in np.sort(drawn))

    @cached_property
    def row(self) -> dict[str, int]:
        """Word, casefolded → row of the profiles."""
        return {word.casefold(): row for row, word in enumerate(self.words)}

    @property
    def profiles(self) -> Array:
        """`(words, exits, features)` evidence of each word alone."""
        return self._profiled[0]

    @cached_property
    def _profiled(self) -> tuple[Array, float]:
        """The profiles, and the seconds that they took."""
        started = time.perf_counter()
        model, policy = self.victim.model, self.victim.policy
        # Exits and pooling are no weights, and temperatures belong to the policy.
        key = (
            self.victim.describe()["weights"],
            model.config.to_json_string(),
            policy.temperatures,
            self.words,
        )
        profiles = _profiles.get(key, self._run_words)
        return profiles, time.perf_counter() - started

    def _run_words(self) -> Array:
        profiles = np.stack(
            [evidence(answer) for answer in self.victim.run([(word,) for word in self.words])]
        )
        profiles.setflags(write=False)
        return profiles

    @property
    def prepared(self) -> PreparationCost:
        """The texts behind the profiles, and the seconds that they took in this process so far."""
        return PreparationCost(len(self.words), self._profiled[1] if "_profiled" in self.__dict__ else 0.0)

    @cached_property
    def one_word_tokens(self) -> int:
        """Tokens of a text of one word, special tokens included."""
        (tokenized,) = self.victim.inspect([AttackedText.of(self.words[0])])
        return len(tokenized.ids)

    def evidence(self, tried: Sequence[Candidate]) -> list[Array]:
        """The white box's evidence for texts that were tried on the victim."""
        answers = [candidate.answer for candidate in tried]
        if not self.own:
            answers = self.victim.run([candidate.text.segments for candidate in tried])
        return [evidence(answer) for answer in answers]

    def __call__(self, points: Array) -> ExitPrediction:
        """Predict the exits that evidence `(n, exits, features)` would take."""
        model, rule = self.victim.model, self.victim.policy.criterion
        classes = len(model.labels)
        gated = points.shape[-1] > classes
        trace = Trace(
            logits=points[..., :classes],
            exit_layers=model.exit_layers,
            flops=np.zeros(points.shape[:2]),
            full_flops=np.zeros(len(points)),
            gates=(1 / (1 + np.exp(-points[..., classes]))).astype(np.float32) if gated else None,
        )
        table = scores(rule, trace)
        over = (table - rule.threshold_at(np.arange(table.shape[1])))[:, :-1]
        over = -over if rule.leaves_below else over
        exit, rows = first_exit(rule, table), np.arange(len(points))
        answering = self.victim.policy.answer_exits(trace)[rows, exit]
        return ExitPrediction(
            layer=np.asarray(model.exit_layers)[exit],
            excess=np.maximum(over, 0).sum(1),
            prediction=trace.predictions()[rows, answering],
        )


def evidence(answer: Answer) -> Array:
    """Evidence of the exits for one text `(exits, features)`: the scaled logits, then the gate's logit, if any."""
    logits = np.asarray(answer.logits, dtype=np.float64)
    if answer.gates is None:
        return logits
    gates = np.clip(answer.gates.astype(np.float64), SATURATED, 1 - SATURATED)
    return np.column_stack([logits, np.log(gates) - np.log1p(-gates)])
