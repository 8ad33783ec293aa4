"""Judges of similarity: sentence encoders, other than the victim, that compare a text with its original."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from offramp._core.errors import OfframpError
from offramp.attacks.options import DEFAULT_JUDGE, NO_JUDGE, RECORD_JUDGES
from offramp.attacks.similarity.universal_sentence_encoder import UniversalSentenceEncoder
from offramp.attacks.victims.answers import Key
from offramp.backbones import load_backbone
from offramp.engine.batching import batches
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder


class Judge(ABC):
    """Embeds texts; the similarity of two texts is the cosine of their vectors.

    Attributes:
        name: as in `load_judge`.
    """

    name: str

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """Vectors `(texts, dim)`."""

    @abstractmethod
    def is_encoder_of(self, model: SegmentedModel) -> bool:
        """Whether the victim was made from this encoder, which is then no independent judge."""

    def similarities(self, pairs: Sequence[tuple[Key, Key]]) -> NDArray[np.float64]:
        """Cosine similarity `(pairs,)` of originals and changed texts; both segments are read as one text."""
        if not pairs:
            return np.empty(0)
        vectors = self.embed([" ".join(key) for pair in pairs for key in pair]).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        return (vectors[0::2] * vectors[1::2]).sum(axis=1).clip(-1, 1)


class UniversalSentenceEncoderJudge(Judge):
    """Google's Universal Sentence Encoder in numpy, about 3 ms a text; related to no transformer encoder."""

    def __init__(self) -> None:
        self.name = DEFAULT_JUDGE
        self.encoder = UniversalSentenceEncoder()

    def embed(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """See `UniversalSentenceEncoder`."""
        return self.encoder(texts)

    def is_encoder_of(self, model: SegmentedModel) -> bool:
        """Never: it is no transformer."""
        return False


class EncoderJudge(Judge):
    """A transformer encoder, its last hidden states averaged over the tokens.

    Args:
        name: a packaged encoder (`minilm-l3`), a folder, or a hub id.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.model, tokenizer = load_backbone(name)
        self.encoder = TextEncoder(tokenizer, max_length=256)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.floating]:
        """Vectors `(texts, dim)`."""
        vectors: dict[int, NDArray[np.floating]] = {}
        for rows, batch in batches(self.encoder(texts), 32, self.encoder.pad_values):
            inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
            hidden = self.model(**inputs).last_hidden_state
            weights = inputs["attention_mask"].unsqueeze(-1)
            means = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
            vectors.update(zip(rows.tolist(), means.numpy(), strict=True))
        return np.stack([vectors[i] for i in range(len(texts))])

    def is_encoder_of(self, model: SegmentedModel) -> bool:
        """Whether the victim has this token table: fine-tuning moves it by a few percent at most."""
        own = cast(nn.Embedding, self.model.get_input_embeddings()).weight.detach()
        tables = [table.weight.detach().cpu() for table in model.embedding_tables()]
        return any(t.shape == own.shape and float((t - own).norm() / own.norm()) < 0.1 for t in tables)


def load_judge(name: str) -> Judge | None:
    """Load the judge of that name.

    Args:
        name: `universal_sentence_encoder`, `none`, or an encoder for `EncoderJudge`.

    Returns:
        The judge; None for `none`. If the default judge cannot be loaded, a warning and None: an attack is useful
        without it.

    Raises:
        OfframpError: another encoder cannot be loaded.
    """
    if name == NO_JUDGE:
        return None
    try:
        return UniversalSentenceEncoderJudge() if name == DEFAULT_JUDGE else EncoderJudge(name)
    except OfframpError as error:
        if name != DEFAULT_JUDGE:
            raise
        warnings.warn(
            f"no similarity will be measured, its column will hold NaN: no judge {name!r} ({error}). "
            "Choose another judge, or similarity='none'",
            stacklevel=2,
        )
        return None


def describe_judge(judge: Judge | None, model: SegmentedModel | None) -> dict[str, Any]:
    """Describe a judge in a result: `judge`, and `judge_is_victims_encoder`."""
    if judge is None:
        return {"judge": NO_JUDGE, "judge_is_victims_encoder": False}
    recorded = RECORD_JUDGES.get(judge.name, judge.name)
    return {"judge": recorded, "judge_is_victims_encoder": model is not None and judge.is_encoder_of(model)}
