"""A model that nobody has trained yet, of the class that a strategy trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from offramp.training.strategies import strategy_class

if TYPE_CHECKING:
    from offramp.data import TextData
    from offramp.model.base import SegmentedModel


def untrained_model(
    strategy: str, backbone: str, exits: Sequence[int] | None, data: TextData, **options: Any
) -> SegmentedModel:
    """A pretrained encoder with fresh heads: one with several exits, or a cascade where exits train alone.

    Args:
        strategy: a key of `offramp.training.strategies.STRATEGIES`.
        backbone: packaged name, folder or hub name.
        exits: exit layers from 1; None for the backbone's default.
        data: whose labels and kind of task the heads are for.
        options: of `from_backbone`: `pooling`, `gates`, `max_length`, `seed`.

    Raises:
        ConfigError: an unknown strategy, before anything is downloaded; or as for `from_backbone`.
    """
    from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification

    alone = strategy_class(strategy).trains_alone
    cls = MultiModelForSequenceClassification if alone else MultiExitForSequenceClassification
    return cls.from_backbone(backbone, exits, labels=data.labels, kind=data.kind, **options)
