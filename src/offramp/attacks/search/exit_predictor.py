"""What an attacker prepares once for a victim: what words say by themselves, and where evidence would leave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.attacks.search.additive_surrogate import Array
from offramp.attacks.search.base import Candidate, PreparationCost
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.answers import Answer
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.criteria import first_exit, scores

SATURATED = 1e-6  # gates this close to 0 or 1 are taken for that close


def evidence(answer: Answer) -> Array:
    """What the exits said of one text `(exits, features)`: the scaled logits, then the gate's logit, if any."""
    logits = np.asarray(answer.logits, dtype=np.float64)
    if answer.gates is None:
        return logits
    gates = np.clip(answer.gates.astype(np.float64), SATURATED, 1 - SATURATED)
    return np.column_stack([logits, np.log(gates) - np.log1p(-gates)])


class Guess(NamedTuple):
    """Where evidence would leave; all `(n,)`.

    Attributes:
        layer: exit layer.
        excess: by how much the exits before the last pass the threshold, added up: 0 where none does.
        prediction: class index.
    """

    layer: NDArray[np.int64]
    excess: Array
    prediction: NDArray[np.generic]


@dataclass(frozen=True)
class ExitPredictor:
    """A white box as the attacker knows it: its words' profiles, and its policy applied to guessed evidence.

    The profiles cost one short text a word, once for a victim, when they are first looked at; no example's account
    holds them.

    Attributes:
        victim: the white box.
        vocabulary: the words that may replace another.
        number: how many of them, drawn once, get a profile.
        own: whether it is what is attacked; else it is the attacker's surrogate, and is asked on the side.
    """

    victim: WhiteBoxVictim
    vocabulary: Vocabulary
    number: int
    own: bool = True

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words with a profile: the same for every victim with this vocabulary."""
        every = self.vocabulary.words
        if len(every) <= self.number:
            return every
        drawn = generator(0, "profiles").choice(len(every), size=self.number, replace=False)
        return tuple(every[place] for place in np.sort(drawn))

    @property
    def profiles(self) -> Array:
        """`(words, exits, features)`: what the exits say of each word by itself."""
        return self._profiled[0]

    @cached_property
    def _profiled(self) -> tuple[Array, float]:
        """The profiles, and the seconds that they took."""
        started = time.perf_counter()
        answers = self.victim._run([(word,) for word in self.words])
        return np.stack([evidence(answer) for answer in answers]), time.perf_counter() - started

    @property
    def prepared(self) -> PreparationCost:
        """The texts behind the profiles, and the seconds that they took in this process so far."""
        return PreparationCost(len(self.words), self._profiled[1] if "_profiled" in self.__dict__ else 0.0)

    @property
    def immovable(self) -> bool:
        """Whether what is attacked lets every text leave at its first exit."""
        return self.own and self.victim.policy.criterion.leaves_at_once

    def seen(self, tried: Sequence[Candidate]) -> list[Array]:
        """What the white box says of texts that were tried on the victim."""
        own = [f.answer for f in tried] if self.own else self.victim._run([f.text.segments for f in tried])
        return [evidence(answer) for answer in own]

    @cached_property
    def row(self) -> dict[str, int]:
        """Word, casefolded → row of the profiles."""
        return {word.casefold(): row for row, word in enumerate(self.words)}

    @cached_property
    def alone(self) -> int:
        """Tokens of a text of one word, special ones included."""
        (look,) = self.victim.inspect([AttackedText.of(self.words[0])])
        return len(look.ids)

    def __call__(self, points: Array) -> Guess:
        """Where evidence `(n, exits, features)` would leave."""
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
        over = (rule.threshold - table if rule.leaves_below else table - rule.threshold)[:, :-1]
        exit = first_exit(rule, table)
        return Guess(
            layer=np.asarray(model.exit_layers)[exit],
            excess=np.maximum(over, 0).sum(1),
            prediction=trace.predictions()[np.arange(len(points)), exit],
        )
