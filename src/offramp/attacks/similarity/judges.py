"""Judges of similarity: sentence encoders, other than the victim, that compare a text with its original."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from offramp._core.errors import OfframpError
from offramp.attacks.options import DEFAULT_JUDGE, NO_JUDGE, RECORD_JUDGES
from offramp.attacks.similarity.base import Judge
from offramp.attacks.similarity.universal_sentence_encoder import UniversalSentenceEncoder
from offramp.backbones import load_backbone
from offramp.engine.batching import batches
from offramp.model.base import SegmentedModel
from offramp.model.encoding import TextEncoder


class EncoderJudge(Judge):
    """A transformer encoder (packaged, as `minilm-l3`, in a folder, or on the hub): its last states, averaged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model, tokenizer = load_backbone(name)
        self.encoder = TextEncoder(tokenizer, max_length=256)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.floating]:
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
    """Load a judge: `universal_sentence_encoder`, None for `none`, or an encoder for `EncoderJudge`.

    If the default judge cannot be loaded, the result is None, with a warning: an attack is useful without it.

    Raises:
        OfframpError: another encoder cannot be loaded.
    """
    if name == NO_JUDGE:
        return None
    try:
        return UniversalSentenceEncoder() if name == DEFAULT_JUDGE else EncoderJudge(name)
    except OfframpError as error:
        if name != DEFAULT_JUDGE:
            raise
        warnings.warn(
            f"similarity will not be measured and its column will hold NaN: no judge {name!r} ({error}). "
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
