"""Universal triggers: a few words in front of every text, searched for on some examples and tested on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator as Rng

from offramp._core.errors import ConfigError
from offramp.attacks.constraints.constraints import Label
from offramp.attacks.objectives.uniform import Uniform
from offramp.attacks.search.base import Query, Search, Steps, score_candidates, start_search
from offramp.attacks.search.space import SearchSpace
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.model_word import GradientWord
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import OpenVictim

START = "the"  # the word in front before the search, as in Wallace et al. 2019
MOST = 3


@dataclass(frozen=True)
class InFront(Search):
    """Put words in front of a text, whatever their effect: a universal attacker does not query the text."""

    words: tuple[str, ...]

    def steps(self, text: AttackedText, space: SearchSpace, rng: Rng, label: Label = None) -> Steps:
        """See `Search`; but the result may be weaker than the clean text."""
        state = yield from start_search(text, space, label)
        changed = text.in_front(self.words)
        candidates = score_candidates([changed], (yield Query([changed])), state.objective)
        return state.clean, candidates[0] if candidates else state.clean


@dataclass(frozen=True)
class Trigger:
    """Words in front, and their effect on the examples of the search."""

    words: tuple[str, ...]  # one to three words; no word that does not help
    depth: float  # mean exit layer with the words
    clean_depth: float  # mean exit layer without them
    closeness: float  # mean closeness to uniform with the words, see `Uniform`
    queries: int  # texts run
    gradients: int  # gradients taken

    def __str__(self) -> str:
        return " ".join(self.words)


def find_trigger(
    victim: OpenVictim,
    texts: Sequence[AttackedText],
    *,
    words: int = MOST,
    tries: int = 20,
    rounds: int = 2,
) -> Trigger:
    """Find the words in front of every text that make the texts leave latest on average.

    Words are added one at a time, up to `words`. Each position is filled, `rounds` times in turn, by the best of the
    `tries` words with the lowest first-order estimate summed over the texts. The best word has the latest mean exit
    layer, and among equals the highest mean closeness to uniform. A trigger has at least one word.

    Args:
        victim: a white box; a surrogate suffices.
        texts: the examples to search on; test the trigger on others.
        words, tries, rounds: see above.

    Raises:
        ConfigError: no texts, or not 1 to 3 words.

    Source: Coalson et al. 2023 (arXiv 2310.19152); the search is that of Wallace et al. 2019 (arXiv 1908.07125).
    """
    if not texts or not 1 <= words <= MOST or tries < 1 or rounds < 1:
        raise ConfigError(
            f"a trigger needs texts and 1 to {MOST} words, tries and rounds of at least 1, got {len(texts)} "
            f"texts, words={words}, tries={tries}, rounds={rounds}"
        )
    search = _TriggerSearch(victim, texts, tries)
    best = clean = search.strength(())
    chosen: tuple[str, ...] = ()
    for size in range(1, words + 1):
        trial = (*chosen, START)
        reached = search.strength(trial)
        for position in [*range(size)] * rounds:
            candidates = search.candidates(trial, position)
            others = [(*trial[:position], word, *trial[position + 1 :]) for word in candidates]
            ranked = [(search.strength(other), other) for other in others]
            strength, other = max(ranked, key=lambda pair: pair[0], default=(reached, trial))
            if strength > reached:
                trial, reached = other, strength
        if size > 1 and reached <= best:
            break
        chosen, best = trial, reached
    return Trigger(chosen, best[0], clean[0], best[1], search.queries, search.gradients)


Strength = tuple[float, float]  # mean exit layer, mean closeness to uniform


class _TriggerSearch:
    """The texts for the search of a trigger, and their queries."""

    def __init__(self, victim: OpenVictim, texts: Sequence[AttackedText], tries: int) -> None:
        self.victim, self.texts, self.tries = victim, texts, tries
        self.objective = Uniform()
        self.vocabulary = Vocabulary.of_model(victim.model)
        self.words = GradientWord(self.vocabulary, victim.model.embedding_tables())
        self.queries = self.gradients = 0

    def strength(self, words: tuple[str, ...]) -> Strength:
        """The effect of words in front, averaged over the texts."""
        requests = [(self.victim.budget(), [text.in_front(words)]) for text in self.texts]
        answers = [answer for (answer,) in self.victim.query_many(requests)]
        self.queries += len(answers)
        exits = np.array([answer.exit for answer in answers])
        distances = self.objective.value(np.stack([answer.logits for answer in answers]), exits)
        return float(np.mean([answer.layer for answer in answers])), float(1 - distances.mean())

    @torch.no_grad()
    def candidates(self, words: tuple[str, ...], position: int) -> list[str]:
        """The words with the lowest first-order estimates at a position, summed over the texts."""
        # The trigger's words become words of the texts themselves, so they have tokens and gradients.
        prefix = " ".join(words)
        texts = [AttackedText.of(f"{prefix} {t.segments[0]}", *t.segments[1:]) for t in self.texts]
        ((*inspected,),) = self.victim.gradients_many([(self.victim.budget(), texts)], self.objective.loss)
        self.gradients += len(inspected)
        estimates = [self.words.estimates(tokenized, [position])[0] for tokenized in inspected]
        total = np.sum([values.cpu().double().numpy() for values in estimates], axis=0)
        total[self.vocabulary.same_word(words[position])] = np.inf
        return [self.vocabulary.words[i] for i in np.argsort(total, kind="stable")[: self.tries]]
