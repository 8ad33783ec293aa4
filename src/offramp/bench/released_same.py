"""SAME with the work pattern of its released code: a plain twin to test and time ours against.

The pattern, as the released code runs (github.com/MatthewCYM/SAME, `WhiteBoxSearchAttack`):
1. One example after another. A text that leaves at the last exit already is not attacked.
2. A round takes one gradient for each text of the beam, alone, and sorts the whole vocabulary for all its words. At the
   limit of changed words it still does: the candidates are refused afterwards, and then the search ends.
3. The candidates of the whole beam are run together, at most 128 at once, in their order, padded to the longest of
   their batch, through all exits. Answers are remembered within an example; a text that two texts of the beam propose
   is run twice.
4. A success does not end the search.

What it computes is what `same-word` computes: fresh gradients, ties ordered by the loss, best text ever. The released
code's flaws are not part of its pattern.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from offramp.attacks.constraints.constraints import Constraints
from offramp.attacks.objectives.same import Same
from offramp.attacks.options import Options
from offramp.attacks.search.base import Candidate, score_candidates
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.base import Answer, TokenizedText, segment_columns
from offramp.attacks.victims.white_box import WhiteBoxVictim, evaluating
from offramp.engine.batching import pad

BATCH = 128  # candidates that the released code runs at once
NO_LIMIT = 10**9  # words


@dataclass
class ReferenceAttack:
    """SAME at the word level, as released code does it.

    Args:
        victim: the model under attack.
        options: λ, candidates, beam, rounds and changed words.
        stops: end after a round with a text that leaves at the last exit, which the released code does not.

    Attributes:
        forward: texts run.
        gradient: gradients taken.
        model_seconds: time spent in model calls.
    """

    victim: WhiteBoxVictim
    options: Options
    stops: bool = False
    forward: int = field(default=0, init=False)
    gradient: int = field(default=0, init=False)
    model_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.objective = Same(self.options.disagreement_weight, self.options.weighting)
        self.constraints = Constraints(self.options.max_changed_words)
        self.unlimited = replace(self.constraints, max_changed_words=NO_LIMIT)
        self.tables = self.victim.model.embedding_tables()
        self.vocabulary = Vocabulary.of_model(self.victim.model)
        self.word = dict(zip(self.vocabulary.ids.tolist(), self.vocabulary.words, strict=True))

    def attack(self, text: AttackedText) -> tuple[Candidate, Candidate]:
        """The clean text and the strongest one, by as many rounds as the budget of words allows."""
        answers: dict[AttackedText, Answer] = {}
        (clean,) = self._run([text], answers)
        best, beam = clean, [clean]
        if clean.done:
            return clean, best
        for _ in range(self.options.rounds):
            if self.stops and best.done:
                break
            proposed = [candidate for parent in beam for candidate in self.candidates(parent.text)]
            allowed = [t for t in proposed if t.num_changed <= self.constraints.budget(t)]
            if not allowed:
                break
            tried = self._run(allowed, answers)
            best = max([best, *tried], key=lambda c: c.score)
            ranked = sorted({c.text: c for c in tried}.values(), key=lambda c: c.score, reverse=True)
            beam = ranked[: self.options.beam]
        return clean, best

    def candidates(self, text: AttackedText) -> list[AttackedText]:
        """The `top_n` texts one word away with the lowest first-order estimates, by sorting all of them."""
        started = time.perf_counter()
        (tokenized,) = self.victim.differentiate([text], self.objective.loss)
        self.model_seconds += time.perf_counter() - started
        self.gradient += 1
        words = self.unlimited.allowed(tokenized)
        if not words:
            return []
        estimates = torch.stack([self._estimates(tokenized, word) for word in words])
        chosen: list[AttackedText] = []
        for flat in estimates.flatten().argsort(stable=True).tolist():
            row, token = divmod(flat, estimates.shape[1])
            new = self.word.get(token)
            if new is not None and new.casefold() != text.words[words[row]].casefold():
                chosen.append(text.replace(words[row], new))
            if len(chosen) == self.options.top_n:
                break
        return chosen

    def _estimates(self, tokenized: TokenizedText, word: int) -> torch.Tensor:
        """For each token of the vocabulary `(E_v − E_w)·g` at the first token of a word."""
        token = tokenized.tokens[word][0]
        rows = min(table.num_embeddings for table in self.tables)
        total = torch.zeros(rows)
        for table, gradient in zip(self.tables, tokenized.gradients, strict=True):
            matrix, g = table.weight.detach().cpu().float()[:rows], gradient[token].cpu().float()
            total += matrix @ g - matrix[tokenized.ids[token]] @ g
        return total

    def _run(self, texts: Sequence[AttackedText], answers: dict[AttackedText, Answer]) -> list[Candidate]:
        """Texts through all exits, in their order; those that were answered before are not run."""
        fresh = [text for text in texts if text not in answers]
        started = time.perf_counter()
        for start in range(0, len(fresh), BATCH):
            batch = fresh[start : start + BATCH]
            answers |= zip(batch, self._answer(batch), strict=True)
        self.model_seconds += time.perf_counter() - started
        self.forward += len(fresh)
        return score_candidates(texts, [answers[text] for text in texts], self.objective)

    def _answer(self, texts: Sequence[AttackedText]) -> list[Answer]:
        """One batch, padded to its longest text."""
        encoder, model = self.victim.encoder, self.victim.model
        encodings = encoder(*segment_columns([text.segments for text in texts]))
        padded = pad(encodings, encoder.pad_values)
        inputs = {name: torch.as_tensor(values, device=model.device) for name, values in padded.items()}
        with evaluating(model), torch.inference_mode():
            return self.victim.answers(inputs)
