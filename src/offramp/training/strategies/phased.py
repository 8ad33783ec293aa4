"""Strategies that train in two phases, each with its own optimizer and schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp._core.errors import ConfigError
from offramp.training.strategies.base import Inputs, Losses, Moment, Phase, Strategy
from offramp.training.strategies.joint import Joint

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel


class TwoStage(Strategy):
    """DeeBERT: the backbone with its last exit first; then, with both frozen, all other heads.

    Args:
        heads_share: length of the second stage, as a share of the requested epochs; the first stage takes all of
            them, so the backbone trains as long as under the other strategies.

    Source: DeeBERT (Xin 2020).
    """

    name = "two_stage"
    label = "two stage"

    def __init__(self, heads_share: float = 1.0) -> None:
        if not heads_share > 0:
            raise ConfigError(f"heads_share of two_stage must be positive, got {heads_share}")
        self.heads_share = heads_share

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("backbone"), Phase("heads", self.heads_share))

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        """The last exit's loss in the first stage, the other heads' in the second.

        Frozen means without gradient: an optimizer skips such parameters, including weight decay.
        """
        import torch

        from offramp.training.strategies.losses import head_loss, last_exit_loss

        if moment.phase == 0:
            yield last_exit_loss(model, inputs, labels)
            return
        with torch.no_grad():
            state = model.start(inputs)
        for k in range(len(model.exit_layers) - 1):
            with torch.no_grad():
                state = model.segment(k, state)
            yield head_loss(model, k, state, labels)


class Mixed(Joint):
    """The backbone with its last exit first, then everything jointly.

    Args:
        weights: of the exits in the second phase, as for `Joint`.
        first: share of the requested epochs that the first phase takes; the second phase takes the rest, so
            the backbone trains as long as under the other strategies.

    Source: arXiv 2407.14320, "mixed" training.
    """

    name = "mixed"
    label = "mixed"
    is_baseline = False

    def __init__(self, weights: str = "uniform", first: float = 0.5) -> None:
        super().__init__(weights)
        if not 0 < first < 1:
            raise ConfigError(f"first of mixed is a share of the epochs between 0 and 1, got {first}")
        self.first = first

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("backbone", self.first), Phase("joint", 1 - self.first))

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        from offramp.training.strategies.losses import last_exit_loss

        if moment.phase:
            yield from super().losses(model, inputs, labels, moment)
        else:
            yield last_exit_loss(model, inputs, labels)
