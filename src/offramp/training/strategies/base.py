"""What a strategy is, and the losses that all of them are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from offramp.model.base import SegmentedModel, exit_loss

Backward = Callable[[Tensor], None]
Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Moment:
    """Where in the training a step stands: all that a strategy may depend on besides batch and weights.

    A run that resumes has the same moments again, so a strategy needs no state of its own.

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
        name: for progress and checkpoints; empty where there is one phase only.
        share: its length, as a share of the epochs (or steps) that were asked for.
    """

    name: str = ""
    share: float = 1.0


ONE_PHASE = Phase()


def gate_loss(gate: Tensor | None, logits: Tensor, labels: Tensor) -> Tensor:
    """MSE between a learned gate and "this exit is right" (SWEET paper, LTE); zero where there is no gate."""
    if gate is None:
        return logits.new_zeros(())
    right = (logits.detach().argmax(dim=-1) == labels).to(gate.dtype)
    return F.mse_loss(gate.sigmoid(), right)


def head_loss(model: SegmentedModel, k: int, state: object, labels: Tensor) -> Tensor:
    """Loss of exit `k` at a state: its task loss, and its gate's where the model has gates."""
    logits, gate = model.head(k, state)
    return exit_loss(logits, labels) + gate_loss(gate, logits, labels)


def exit_losses(model: SegmentedModel, inputs: Inputs, labels: Tensor) -> list[Tensor]:
    """The losses of all exits on one graph: each reaches every layer below it."""
    state, losses = model.start(inputs), []
    for k in range(len(model.exit_layers)):
        state = model.segment(k, state)
        losses.append(head_loss(model, k, state, labels))
    return losses


def last_exit_loss(model: SegmentedModel, inputs: Inputs, labels: Tensor) -> Tensor:
    """The loss of the last exit; the other heads do not run."""
    state, exits = model.start(inputs), len(model.exit_layers)
    for k in range(exits):
        state = model.segment(k, state)
    return head_loss(model, exits - 1, state, labels)


class Strategy(ABC):
    """One way to train all exits."""

    name: ClassVar[str]

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
            backward: takes what is to be minimised, a scalar; may be called several times.
            moment: where in the training this step stands.

        Returns:
            The summed loss, detached.
        """
