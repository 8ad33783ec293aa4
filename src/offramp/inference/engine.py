"""Texts in, answers out: the adaptive classifier that a program calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.errors import ConfigError, unknown_name
from offramp.engine.compaction import CompactingEngine
from offramp.engine.policy import Decisions, Policy

if TYPE_CHECKING:
    from offramp.model.base import SegmentedModel

BACKENDS = ("torch",)


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        label: class name, or the predicted value for regression.
        probability: calibrated probability of the label; None for regression.
        exit_layer: layer after which the text left, counted from 1.
        cost: FLOPs spent as a share of the full model's.
    """

    label: str | float
    probability: float | None
    exit_layer: int
    cost: float


class Engine:
    """Runs a model with early exits: rows that are done leave the batch.

    Args:
        model: a trained model, or the folder of one.
        policy: when to leave; a `Policy` or a file that `tune` wrote.
        backend: `torch`.
        batch_size: rows run at once; exits and labels do not depend on it.

    Raises:
        CriterionError: the policy was made for another model.
    """

    def __init__(
        self,
        model: SegmentedModel | str | Path,
        policy: Policy | str | Path,
        *,
        backend: str = "torch",
        batch_size: int = 32,
    ) -> None:
        from offramp.inference.segments import TorchSegments
        from offramp.model import load_model
        from offramp.model.encoding import TextEncoder

        if backend not in BACKENDS:
            raise ConfigError(unknown_name("backend", backend, BACKENDS))
        if isinstance(model, str | Path):
            model = load_model(model)
        if not isinstance(policy, Policy):
            policy = Policy.load(policy)
        self.encoder = TextEncoder.of(model)
        self.labels = model.labels
        self.segments = TorchSegments(model)
        self.compacting: CompactingEngine[Any] = CompactingEngine(
            self.segments, policy, batch_size=batch_size, pad_values=self.encoder.pad_values
        )

    def decide(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Decisions:
        """Decisions in arrays, in the order of the texts."""
        return self.compacting.run(self.encoder(texts, pairs))

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """One `Prediction` for each text, in order."""
        encodings = self.encoder(texts, pairs)
        decisions = self.compacting.run(encodings)
        lengths = np.array([len(e["input_ids"]) for e in encodings], dtype=np.int64)
        full = self.segments.costs(lengths)[1]
        return [
            Prediction(
                label=self.labels[int(answer)] if self.labels else float(answer),
                probability=float(probability) if self.labels else None,
                exit_layer=int(layer),
                cost=float(cost / whole),
            )
            for answer, probability, layer, cost, whole in zip(
                decisions.prediction,
                decisions.probability,
                decisions.layer,
                decisions.cost,
                full,
                strict=True,
            )
        ]
