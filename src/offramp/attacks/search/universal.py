"""Universal triggers: a few words in front of every text, found on some examples and tried on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
from offramp.attacks.constraints.constraints import Label
from offramp.attacks.objectives.baselines import Uniform
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.search.base import Query, Search, Steps, score_candidates, start_search
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.base import first_order
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.answers import TokenizedText
from offramp.attacks.victims.white_box import WhiteBoxVictim

START = "the"  # what stands in front before the search; Wallace et al. 2019 start so
MOST = 3


@dataclass(frozen=True)
class InFront(Search):
    """Put words in front of a text, whatever comes of it: a universal attacker does not look.

    Attributes:
        words: the trigger.
    """

    words: tuple[str, ...]

    def steps(
        self, text: AttackedText, recipe: Recipe, rng: np.random.Generator, label: Label = None
    ) -> Steps:
        """See `Search`; here alone the result may be weaker than the clean text."""
        hunt = yield from start_search(text, recipe, label)
        changed = text.in_front(self.words)
        answered = score_candidates([changed], (yield Query([changed])), hunt.objective)
        return hunt.clean, answered[0] if answered else hunt.clean


@dataclass(frozen=True)
class Trigger:
    """Words in front, and what they did to the examples they were searched on.

    Attributes:
        words: one to three words: no more than help.
        depth: mean exit layer with them.
        clean_depth: mean exit layer without.
        closeness: mean closeness to uniform with them, see `Uniform`.
        queries: texts run.
        gradients: gradients taken.
    """

    words: tuple[str, ...]
    depth: float
    clean_depth: float
    closeness: float
    queries: int
    gradients: int

    def __str__(self) -> str:
        return " ".join(self.words)


def find_trigger(
    victim: WhiteBoxVictim,
    texts: Sequence[AttackedText],
    *,
    words: int = MOST,
    tries: int = 20,
    rounds: int = 2,
) -> Trigger:
    """The words that, put in front of every text, make them leave latest on average.

    Words are added one at a time, up to `words`. Each place is filled, `rounds` times in turn, by the best of
    the `tries` words with the lowest first-order estimate summed over the texts. Better is a later mean exit
    layer, and among equals a higher mean closeness to uniform. One word there always is.

    Args:
        victim: a white box; a surrogate will do.
        texts: what to search on; not what the trigger is then tested on.
        words: most words.
        tries: words tried for each place in each round.
        rounds: passes over the places after each word that is added.

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
        for place in [place for _ in range(rounds) for place in range(size)]:
            trial, reached = search.improve(trial, place, reached)
        if size > 1 and reached <= best:
            break
        chosen, best = trial, reached
    return Trigger(chosen, best[0], clean[0], best[1], search.queries, search.gradients)


Strength = tuple[float, float]  # mean exit layer, mean closeness to uniform


class _TriggerSearch:
    """The texts that a trigger is searched on, and what has been asked about them."""

    def __init__(self, victim: WhiteBoxVictim, texts: Sequence[AttackedText], tries: int) -> None:
        self.victim, self.texts, self.tries = victim, texts, tries
        self.objective = Uniform()
        self.tables = victim.model.embedding_tables()
        rows = min(table.num_embeddings for table in self.tables)
        self.vocabulary = Vocabulary.of(victim.model.tokenizer, rows)
        self.queries = self.gradients = 0

    def strength(self, words: tuple[str, ...]) -> Strength:
        """What words in front do, averaged over the texts."""
        accounts = [self.victim.budget() for _ in self.texts]
        asked = [(a, [text.in_front(words)]) for a, text in zip(accounts, self.texts, strict=True)]
        answers = [answer for (answer,) in self.victim.query_many(asked)]
        self.queries += len(answers)
        exits = np.array([answer.exit for answer in answers])
        far = self.objective.value(np.stack([answer.logits for answer in answers]), exits)
        return float(np.mean([answer.layer for answer in answers])), float(1 - far.mean())

    def improve(
        self, words: tuple[str, ...], place: int, reached: Strength
    ) -> tuple[tuple[str, ...], Strength]:
        """The words with the best of the words tried at one place; as they were where none is better."""
        trials = [(*words[:place], word, *words[place + 1 :]) for word in self._candidates(words, place)]
        ranked = [(self.strength(trial), trial) for trial in trials]
        best = max(ranked, key=lambda pair: pair[0], default=(reached, words))
        return (best[1], best[0]) if best[0] > reached else (words, reached)

    @torch.no_grad()
    def _candidates(self, words: tuple[str, ...], place: int) -> list[str]:
        """The words with the lowest first-order estimates at a place, summed over the texts."""
        # The trigger's words are made words of the texts themselves, so that they have tokens and gradients.
        prefix = " ".join(words)
        texts = [AttackedText.of(f"{prefix} {t.segments[0]}", *t.segments[1:]) for t in self.texts]
        account = self.victim.budget()
        ((*looks,),) = self.victim.gradients_many([(account, texts)], self.objective.loss)
        self.gradients += len(looks)
        total = np.sum([self._estimates(look, place) for look in looks], axis=0)
        total[self.vocabulary.same_word(words[place])] = np.inf
        return [self.vocabulary.words[i] for i in np.argsort(total, kind="stable")[: self.tries]]

    def _estimates(self, look: TokenizedText, place: int) -> NDArray[np.float64]:
        token = look.tokens[place][0]
        ids = torch.tensor([look.ids[token]], device=self.tables[0].weight.device)
        matrices = [table.weight.float() for table in self.tables]
        scores = first_order(matrices, ids, [g[token : token + 1].float() for g in look.gradients])[0]
        values: NDArray[np.float64] = scores.cpu().double().numpy()[self.vocabulary.ids]
        return values
