"""Joint training in which the last exit teaches the others."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from offramp._core.errors import ConfigError
from offramp.model.base import SegmentedModel, exit_loss
from offramp.training.strategies.base import START, Backward, Inputs, Moment, gate_loss
from offramp.training.strategies.joint import Joint


def distill_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`T² · KL(p_teacher ‖ p_student)`, both at temperature T, the teacher without gradient.

    Args:
        student: logits `(batch, classes)`; for regression `(batch, 1)`, where the mean squared difference of
            the two outputs takes the divergence's place.
        teacher: likewise.
        temperature: T; scaled by its square, so that the gradients keep their size (Hinton 2015).
    """
    teacher = teacher.detach()
    if student.shape[-1] == 1:
        return F.mse_loss(student, teacher)
    wanted = F.softmax(teacher / temperature, dim=-1)
    divergence = F.kl_div(F.log_softmax(student / temperature, dim=-1), wanted, reduction="batchmean")
    return temperature**2 * divergence


class SelfDistill(Joint):
    """The joint loss, and for every exit but the last its divergence from the last exit's answer.

    FastBERT distils with the backbone frozen, BERxiT while everything trains: this is the latter.

    Args:
        weights: of the exits' own losses, as for `Joint`.
        temperature: of the distillation; 1 as in FastBERT.
        weight: of the distillation beside the exits' own losses.

    Source: FastBERT (Liu 2020), self-distillation; BERxiT (Xin 2021).
    """

    name = "self_distill"

    def __init__(self, weights: str = "uniform", temperature: float = 1.0, weight: float = 1.0) -> None:
        super().__init__(weights)
        if not temperature > 0:
            raise ConfigError(f"the temperature of self_distill must be positive, got {temperature}")
        self.temperature, self.weight = temperature, weight

    def step(
        self,
        model: SegmentedModel,
        inputs: Inputs,
        labels: Tensor,
        backward: Backward,
        moment: Moment = START,
    ) -> Tensor:
        """One forward pass, one backward pass; distillation does not reach the teacher."""
        state, logits, losses = model.start(inputs), [], []
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            scores, gate = model.head(k, state)
            logits.append(scores)
            losses.append(exit_loss(scores, labels) + gate_loss(gate, scores, labels))
        loss = self.total(losses)
        for student in logits[:-1]:
            loss = loss + self.weight * distill_loss(student, logits[-1], self.temperature)
        backward(loss)
        return loss.detach()
