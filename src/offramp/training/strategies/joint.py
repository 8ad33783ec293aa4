"""Every exit at once: joint training, and the strategies that vary it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp._core.errors import ConfigError, unknown_name
from offramp.training.strategies.base import Inputs, Moment, SingleLoss

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel

WEIGHTS = ("uniform", "linear")


class Joint(SingleLoss):
    """Early-Exit: the weighted sum of all exits' losses; every exit updates all layers below it.

    Args:
        weights: `uniform` (Right Tool, Schwartz 2020) or `linear`, `i / Σi` times the number of exits, which keeps
            the total weight (the weighting of PABEE, Zhou 2020).
    """

    name = "joint"
    label = "Early-Exit"
    is_baseline = True

    def __init__(self, weights: str = "uniform") -> None:
        if weights not in WEIGHTS:
            raise ConfigError(unknown_name("loss weighting", weights, WEIGHTS))
        self.weights = weights

    def exit_weights(self, exits: int) -> list[float]:
        """One weight an exit; they sum to the number of exits."""
        ranks = range(1, exits + 1)
        return [1.0 if self.weights == "uniform" else rank / sum(ranks) * exits for rank in ranks]

    def loss(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Tensor:
        """The weighted sum of all exits' losses."""
        from offramp.training.strategies.losses import exit_losses, weighted_sum

        losses = exit_losses(model, inputs, labels)
        return weighted_sum(losses, self.exit_weights(len(losses)))


class MultiModel(Joint):
    """Independent classifiers (SWEET paper, "MM"): each member of a cascade is trained by its own run."""

    name = "multi_model"
    label = "Multi-Model"
    is_baseline = False
    trains_alone = True
    claim = 2.3


class Alternating(Joint):
    """Even steps, counted from 0, minimise the last exit's loss alone, odd steps the joint loss.

    Source: BERxiT (Xin 2021), the fine-tuning strategy "alternating".
    """

    name = "alternating"
    label = "alternating"
    is_baseline = False

    def loss(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Tensor:
        """The last exit's loss or the joint one; on even steps the other heads do not run."""
        from offramp.training.strategies.losses import last_exit_loss

        if moment.step % 2:
            return super().loss(model, inputs, labels, moment)
        return last_exit_loss(model, inputs, labels)


class SelfDistill(Joint):
    """The joint loss, and for every exit but the last its divergence from the last exit's answer.

    FastBERT distils with a frozen backbone, BERxiT while everything trains: this is the latter.

    Args:
        weights: of the exits' own losses, as for `Joint`.
        temperature: of the distillation; 1 as in FastBERT.
        weight: of the distillation beside the exits' own losses.

    Source: FastBERT (Liu 2020), self-distillation; BERxiT (Xin 2021).
    """

    name = "self_distill"
    label = "self distill"
    is_baseline = False

    def __init__(self, weights: str = "uniform", temperature: float = 1.0, weight: float = 1.0) -> None:
        super().__init__(weights)
        if not temperature > 0:
            raise ConfigError(f"the temperature of self_distill must be positive, got {temperature}")
        self.temperature, self.weight = temperature, weight

    def loss(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Tensor:
        """The joint loss and the distillation, which does not reach the teacher."""
        from offramp.model.base import exit_loss
        from offramp.training.strategies.losses import distill_loss, gate_loss, weighted_sum

        state, logits, losses = model.start(inputs), [], []
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            scores, gate = model.head(k, state)
            logits.append(scores)
            losses.append(exit_loss(scores, labels) + gate_loss(gate, scores, labels))
        loss = weighted_sum(losses, self.exit_weights(len(losses)))
        for student in logits[:-1]:
            loss = loss + self.weight * distill_loss(student, logits[-1], self.temperature)
        return loss
