"""The base class of a strategy. It imports no torch, so reports can read the facts about a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from offramp.model.base import SegmentedModel

Backward: TypeAlias = "Callable[[Tensor], None]"
Inputs: TypeAlias = "Mapping[str, Tensor]"
Losses: TypeAlias = "Iterator[Tensor]"


@dataclass(frozen=True)
class Moment:
    """The position of a step in training. A strategy may depend on it, on the batch and on the weights only.

    A resumed run meets the same moments again, so a strategy needs no state of its own.

    Attributes:
        step: optimizer steps taken in this phase, from 0.
        phase: index of the phase.
        seed: of the run.
        steps: optimizer steps of this phase in all.
    """

    step: int = 0
    phase: int = 0
    seed: int = 0
    steps: int = 1

    @property
    def progress(self) -> float:
        """The share of the phase that is done, in [0, 1]."""
        return min(self.step / max(self.steps, 1), 1.0)


START = Moment()


@dataclass(frozen=True)
class Phase:
    """A part of training with its own optimizer and schedule.

    Attributes:
        name: for progress and checkpoints; empty for the only phase of a strategy.
        share: its length, as a share of the requested epochs (or steps).
    """

    name: str = ""
    share: float = 1.0


ONE_PHASE = Phase()


class Strategy(ABC):
    """One way to train all exits.

    Attributes:
        name: its key in `STRATEGIES`.
        label: its name in tables and figures.
        is_baseline: whether studies compare the other strategies with it.
        trains_alone: whether every exit is a separate classifier with its own training run (a cascade).
        cuts_graph: whether the graph is cut behind every exit, so that exits share no layer.
        claim: points by which the strategy's individual classifiers beat the baseline's in the paper, on average
            over tasks and exits; None if the paper makes no such claim.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    is_baseline: ClassVar[bool] = False
    trains_alone: ClassVar[bool] = False
    cuts_graph: ClassVar[bool] = False
    claim: ClassVar[float | None] = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The parts of training, in order; most strategies have one."""
        return (ONE_PHASE,)

    def clip_groups(self, model: SegmentedModel) -> list[list[Parameter]]:
        """Parameters whose gradients are clipped together, by the norm of all of them."""
        return [list(model.parameters())]

    @abstractmethod
    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        """The scalars that one step minimises, each with its graph; arguments are those of `step`."""

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
        """Put the gradients of one batch into `.grad` through `backward`.

        Args:
            model: in training mode.
            inputs: `input_ids`, `attention_mask`, …, `(batch, length)`.
            labels: `(batch,)`.
            backward: takes a scalar to minimise; called once for each of `losses`, before the next is computed.
            moment: the position of this step in the training.

        Returns:
            The summed loss, detached.
        """
        import torch

        total = torch.zeros((), device=labels.device)
        for loss in self.losses(model, inputs, labels, moment):
            backward(loss)
            total = total + loss.detach()
        return total
