"""What a strategy is. No torch at import: a report reads the facts about a strategy without it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel

Backward: TypeAlias = "Callable[[Tensor], None]"
Inputs: TypeAlias = "Mapping[str, Tensor]"


@dataclass(frozen=True)
class Moment:
    """The position of a step in the training: all that a strategy may depend on besides batch and weights.

    A resumed run meets the same moments again, so a strategy needs no state of its own.

    Attributes:
        step: optimizer steps taken in this phase, from 0.
        phase: index of the phase.
        seed: of the run.
    """

    step: int = 0
    phase: int = 0
    seed: int = 0


START = Moment()


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an optimizer and a schedule of its own.

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
        trains_alone: whether every exit is a classifier of its own, trained in a run of its own (a cascade).
        cuts_graph: whether the graph is cut behind every exit, so that exits share no layer.
        claim: points by which the strategy's individual classifiers beat the baseline's in the paper, on average
            over tasks and exits; None where the paper makes no such claim.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    is_baseline: ClassVar[bool] = False
    trains_alone: ClassVar[bool] = False
    cuts_graph: ClassVar[bool] = False
    claim: ClassVar[float | None] = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The stretches of training, one after another; most strategies have one."""
        return (ONE_PHASE,)

    @abstractmethod
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
            backward: takes the scalar that is minimised; may be called several times.
            moment: the position of this step in the training.

        Returns:
            The summed loss, detached.
        """


class SingleLoss(Strategy):
    """A strategy whose step is one backward pass from one loss."""

    @abstractmethod
    def loss(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Tensor:
        """The loss of one batch, with its graph: a scalar. Arguments are those of `step`."""

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
        """One forward pass, one backward pass."""
        loss = self.loss(model, inputs, labels, moment)
        backward(loss)
        return loss.detach()
