"""Every exit at once: joint training, and the strategies that vary it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from offramp._core.arguments import choice, number
from offramp._core.errors import ConfigError
from offramp.training.strategies.base import Inputs, Losses, Moment, Strategy

if TYPE_CHECKING:
    from torch import Tensor

    from offramp.model.base import SegmentedModel
    from offramp.model.multi_exit import MultiExitForSequenceClassification

WEIGHTS = ("uniform", "linear")


class Joint(Strategy):
    """Early-Exit: the weighted sum of all exits' losses; every exit updates all layers below it.

    Args:
        weights: `uniform` (Right Tool, Schwartz 2020) or `linear`, `i / Σi` times the number of exits, which keeps
            the total weight (the weighting of PABEE, Zhou 2020).
    """

    name = "joint"
    label = "Early-Exit"
    is_baseline = True

    def __init__(self, weights: str = "uniform") -> None:
        self.weights = choice("loss weighting", weights, WEIGHTS)

    def exit_weights(self, exits: int) -> list[float]:
        """One weight per exit; they sum to the number of exits."""
        ranks = range(1, exits + 1)
        return [1.0 if self.weights == "uniform" else rank / sum(ranks) * exits for rank in ranks]

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        from offramp.training.strategies.losses import exit_losses, weighted_sum

        losses = exit_losses(model, inputs, labels)
        yield weighted_sum(losses, self.exit_weights(len(losses)))


class MultiModel(Joint):
    """Independent classifiers (SWEET paper, "MM"): each member of a cascade is trained by its own run."""

    name = "multi_model"
    label = "Multi-Model"
    is_baseline = False
    trains_alone = True
    claim = 2.3


class Alternating(Joint):
    """Even steps, counted from 0, minimise only the last exit's loss, odd steps the joint loss.

    Source: BERxiT (Xin 2021), the fine-tuning strategy "alternating".
    """

    name = "alternating"
    label = "alternating"
    is_baseline = False

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        from offramp.training.strategies.losses import last_exit_loss

        if moment.step % 2:
            yield from super().losses(model, inputs, labels, moment)
        else:
            yield last_exit_loss(model, inputs, labels)


class SelfDistill(Joint):
    """The joint loss, and for every earlier exit its divergence from the last exit's answer.

    FastBERT distils with a frozen backbone, BERxiT while everything trains. This is BERxiT's way.

    Args:
        weights: of the exits' own losses, as for `Joint`.
        temperature: of the distillation; 1 as in FastBERT.
        weight: of the distillation, next to the exits' own losses.

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

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        from offramp.model.heads import exit_loss
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
        yield loss


class GradientEquilibrium(Strategy):
    """Joint training with gradients scaled on the way down: at exit i of E, the exit's own by `1/(E-i+1)`
    and those of later exits by `(E-i)/(E-i+1)`.

    So a layer receives the mean over the exits above it; joint training gives it their sum. The heads themselves
    are not scaled, since only one exit updates each.

    A segment has one factor, and Adam divides each gradient by its own size. So under Adam this differs from
    joint training only through gradient clipping and Adam's epsilon. The paper trains with SGD.

    Source: Li et al. 2019 (Improved Techniques for Training Adaptive Deep Networks), "gradient equilibrium".
    """

    name = "gradient_equilibrium"
    label = "gradient equilibrium"

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        import torch

        from offramp.training.strategies.losses import head_loss
        from offramp.training.surgery import scale_state

        state = model.start(inputs)
        losses: list[Tensor] = []
        for later in reversed(range(len(model.exit_layers))):  # exits behind this one: E - i
            k = len(losses)
            state = model.segment(k, state)
            losses.append(head_loss(model, k, scale_state(state, 1 / (later + 1)), labels))
            state = scale_state(state, later / (later + 1))
        yield torch.stack(losses).sum()


class PCGrad(Strategy):
    """Joint training in which an exit's gradient is projected off conflicting gradients.

    Gradients are compared over the parameters that both exits reach: the layers below the earlier one. A step
    is one forward pass and a backward pass for each exit, whose gradients are kept; the model is not copied.

    Source: Yu et al. 2020 (Gradient Surgery for Multi-Task Learning), algorithm 1.
    """

    name = "pcgrad"
    label = "pcgrad"

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        """Seed and step draw the order of the projections, so a resumed run repeats it."""
        import torch

        from offramp.training.strategies.losses import exit_losses
        from offramp.training.surgery import conflict_free_sum, projection_order, with_gradients

        parameters = [p for p in model.parameters() if p.requires_grad]
        losses = exit_losses(model, inputs, labels)
        gradients = [
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in losses
        ]
        summed = conflict_free_sum(gradients, projection_order(len(losses), moment.seed, moment.step))
        yield with_gradients(torch.stack(losses).sum(), parameters, summed)


class EqualNorm(Strategy):
    """Joint training in which, layer by layer, the gradients of all exits above have the same norm.

    The gradient of a layer is `Σ_i (m / ‖g_i‖) g_i`, where `g_i` is exit i's gradient there and `m` the mean of the
    exits' norms. So each exit owns an equal share of the update, and the norms still add up to what they are in joint
    training. With `owner` above 1, the first exit above a layer owns more of it, up to all of it, as in SWEET.

    The embeddings, with the tables that all layers share by construction, count as one layer. Layers that share their
    parameters count as one, too. Each head keeps its own gradient. A step is one forward pass and a backward pass for
    each exit.

    Adam divides every gradient by its own running size, so `m` itself hardly matters. The ratios between the exits do.

    Args:
        owner: how many times the norm of each other exit's gradient that of the first exit above the layer has. Of four
            exits, the first owns a quarter of the first layer's norms with 1, half with 3, nine tenths with 27.

    Source: Chen et al. 2018 (GradNorm), equation 1 with α = 0: the same norm for every task. GradNorm learns weights of
    the losses that approach it in the last shared layer. Here it holds exactly, in each layer and at each step.
    """

    name = "equal_norm"
    label = "equal norms"

    def __init__(self, owner: float = 1.0) -> None:
        self.owner = number("owner of equal_norm", owner, "a positive number", lambda w: 0 < w < math.inf)

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        import torch

        from offramp.training.strategies.losses import exit_losses
        from offramp.training.surgery import equal_norm_sum, with_gradients

        parameters = [p for p in model.parameters() if p.requires_grad]
        position = {p: i for i, p in enumerate(parameters)}
        layers = cast("MultiExitForSequenceClassification", model).parameters_by_layer()
        groups = [[position[p] for p in layer if p in position] for layer in layers]
        losses = exit_losses(model, inputs, labels)
        gradients = (
            torch.autograd.grad(loss, parameters, retain_graph=loss is not losses[-1], allow_unused=True)
            for loss in losses
        )
        yield with_gradients(
            torch.stack(losses).sum(),
            parameters,
            equal_norm_sum(gradients, [g for g in groups if g], self.owner),
        )
