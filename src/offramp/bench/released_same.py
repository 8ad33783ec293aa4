"""SAME with the work pattern of its released code: slow, plain, and a twin to test and time ours against.

One example at a time; every query padded to the model's maximum length; all exits always computed; the whole
vocabulary sorted for every word in every round; no answer remembered; no end on success. What it computes is what
`same-word` computes: fresh gradients, best text ever (the released code's flaws are not part of its pattern).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.same import Same
from offramp.attacks.options import Options
from offramp.attacks.search.base import Candidate, score_candidates
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import TokenizedText
from offramp.attacks.victims.white_box import WhiteBoxVictim, evaluating


@dataclass
class ReferenceAttack:
    """SAME at the word level, as released code does it.

    Args:
        victim: the model under attack.
        options: λ, candidates, beam, rounds and changed words.

    Attributes:
        forward: texts run.
        gradient: gradients taken.
        model_seconds: time spent in model calls.
    """

    victim: WhiteBoxVictim
    options: Options
    forward: int = field(default=0, init=False)
    gradient: int = field(default=0, init=False)
    model_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.objective = Same(self.options.disagreement_weight, self.options.weighting)
        self.constraints = Constraints(self.options.max_changed_words)
        self.tables = self.victim.model.embedding_tables()
        self.vocabulary = Vocabulary.of_model(self.victim.model)

    def attack(self, text: AttackedText) -> tuple[Candidate, Candidate]:
        """The clean text and the strongest one, by as many rounds as the budget of words allows."""
        clean = best = self._run(text)
        beam = [clean]
        for _ in range(self.options.rounds):
            tried: dict[AttackedText, Candidate] = {}
            for parent in beam:
                if self.constraints.open(parent.text):
                    for candidate in self.candidates(parent.text):
                        tried.setdefault(candidate, self._run(candidate))
            best = max([best, *tried.values()], key=lambda f: f.score)
            beam = sorted(tried.values(), key=lambda f: f.score, reverse=True)[: self.options.beam]
        return clean, best

    def candidates(self, text: AttackedText) -> list[AttackedText]:
        """The `top_n` texts one word away with the lowest first-order estimates, by sorting all of them."""
        started = time.perf_counter()
        (tokenized,) = self.victim.differentiate([text], self.objective.loss)
        self.model_seconds += time.perf_counter() - started
        self.gradient += 1
        ranked = []
        for word in self.constraints.allowed(tokenized):
            estimates = self._estimates(tokenized, word)
            same = set(self.vocabulary.same_word(text.words[word]))
            order = [entry for entry in np.argsort(estimates, kind="stable").tolist() if entry not in same]
            ranked += [(estimates[entry], word, entry) for entry in order[: self.options.top_n]]
        chosen = sorted(ranked)[: self.options.top_n]
        return [text.replace(word, self.vocabulary.words[entry]) for _, word, entry in chosen]

    def _estimates(self, tokenized: TokenizedText, word: int) -> NDArray[np.float64]:
        """For each word of the vocabulary `(E_v − E_w)·g` at the first token of a word."""
        token, total = tokenized.tokens[word][0], np.zeros(len(self.vocabulary.words))
        for table, gradient in zip(self.tables, tokenized.gradients, strict=True):
            matrix, g = table.weight.detach().cpu().float().numpy(), gradient[token].cpu().float().numpy()
            total += matrix[self.vocabulary.ids] @ g - matrix[tokenized.ids[token]] @ g
        return total

    def _run(self, text: AttackedText) -> Candidate:
        """One text through all exits, padded to the maximum length."""
        started = time.perf_counter()
        encoder = self.victim.encoder
        first, *second = ([segment] for segment in text.segments)
        (encoding,) = encoder(first, *second)
        missing = encoder.max_length - len(encoding["input_ids"])
        pads = encoder.pad_values
        padded = {name: [*values, *[pads[name]] * missing] for name, values in encoding.items()}
        inputs = {k: torch.tensor([v], device=self.victim.model.device) for k, v in padded.items()}
        with evaluating(self.victim.model), torch.inference_mode():
            answers = self.victim.answers(inputs)
        self.model_seconds += time.perf_counter() - started
        self.forward += 1
        return score_candidates([text], answers, self.objective)[0]
