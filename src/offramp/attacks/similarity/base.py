"""What a judge of similarity is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offramp.attacks.victims.base import Key
from offramp.model.base import SegmentedModel


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
