"""Words that a masked language model expects in the place of another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM, AutoTokenizer

from offramp._core.errors import DataError
from offramp._core.library import hub, quiet
from offramp._core.text import clean_text
from offramp.attacks.text.attacked_text import AttackedText, word_tokens
from offramp.attacks.transformations.base import Edit, Transformation
from offramp.attacks.transformations.lexical import cased_like, in_turn
from offramp.attacks.transformations.vocabulary import Vocabulary
from offramp.attacks.victims.answers import TokenizedText
from offramp.model.loading import named_device

Inputs = dict[str, list[int]]
LONGEST = 512  # tokens that are read where the tokenizer tells no bound


class MaskedLanguageModel:
    """A masked language model with the words that it knows as one token.

    Args:
        name: a folder, or a hub id.

    Raises:
        DataError: nothing there, a model without a trained head for masked words, or no fast tokenizer with a mask.
    """

    def __init__(self, name: str) -> None:
        try:
            with hub(), quiet():
                self.model, told = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True)
                self.tokenizer = AutoTokenizer.from_pretrained(name)
        except Exception as error:  # each file has a library and error types of its own
            raise DataError(
                f"no masked language model at {name} ({type(error).__name__}: {' '.join(str(error).split())[:120]}): "
                "give a folder or a hub id as masked_lm"
            ) from error
        if told["missing_keys"]:
            raise DataError(f"{name} holds no head for masked words: give another model as masked_lm")
        if not self.tokenizer.is_fast or self.tokenizer.mask_token_id is None:
            raise DataError(f"{name} has no fast tokenizer with a mask: give another model as masked_lm")
        self.model.eval().to(named_device("auto"))
        self.vocabulary = Vocabulary.of(self.tokenizer, self.model.config.vocab_size)
        self._read: tuple[AttackedText, Inputs, list[tuple[int, ...]], NDArray[np.float32]] | None = None

    def expects(self, text: AttackedText, place: int) -> NDArray[np.float32] | None:
        """Logits `(vocabulary,)` of the words at the place of a word; None where truncation cut it away.

        A word of one token is seen by the model, as in the BERT-Attack paper; one of several is masked by a single
        mask, so that a single token can take its place.
        """
        if self._read is None or self._read[0] != text:
            batch = self.tokenizer(
                *([clean_text(segment)] for segment in text.segments),
                truncation=True,
                max_length=min(self.tokenizer.model_max_length, LONGEST),
                return_offsets_mapping=True,
            )
            inputs = {name: batch[name][0] for name in self.tokenizer.model_input_names if name in batch}
            owned = word_tokens(text, batch["offset_mapping"][0], batch.sequence_ids(0))
            self._read = text, inputs, owned, self._logits(inputs)
        _, inputs, owned, logits = self._read
        if not owned[place]:
            return None
        first, last = owned[place][0], owned[place][-1]
        if first < last:
            shorter = {name: [*values[: first + 1], *values[last + 1 :]] for name, values in inputs.items()}
            shorter["input_ids"][first] = self.tokenizer.mask_token_id
            logits = self._logits(shorter)
        return logits[first]

    @torch.inference_mode()
    def _logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """Logits `(tokens, vocabulary)`."""
        device = self.model.device
        found = self.model(**{name: torch.tensor([values], device=device) for name, values in inputs.items()})
        ids = torch.as_tensor(self.vocabulary.ids, device=device)
        return found.logits[0, :, ids].float().cpu().numpy()


@lru_cache(maxsize=1)
def load_masked_lm(name: str) -> MaskedLanguageModel:
    """The model of that name, kept for the next recipe."""
    return MaskedLanguageModel(name)


@dataclass(frozen=True)
class MaskedWord(Transformation):
    """The words that a masked language model expects most in a word's place, in its case.

    Attributes:
        language_model: says what it expects of the text as it stands.
        most: most words a place.
    """

    language_model: MaskedLanguageModel = field(repr=False)
    most: int = 48

    def edits(
        self, look: TokenizedText, words: Sequence[int], top_n: int, rng: np.random.Generator
    ) -> list[Edit]:
        """Each place's likeliest word in turn, then the second ones, and so on."""
        vocabulary, columns = self.language_model.vocabulary, []
        for place in words:
            logits = self.language_model.expects(look.text, place)
            if logits is None:
                continue
            word = look.text.words[place]
            same = set(vocabulary.same_word(word))
            likeliest = [int(i) for i in np.argsort(-logits, kind="stable") if int(i) not in same][
                : self.most
            ]
            columns.append([Edit(place, cased_like(vocabulary.words[i], word)) for i in likeliest])
        return in_turn(columns, top_n)
