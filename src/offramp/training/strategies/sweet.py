"""SWEET: layers that belong to one exit each."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from offramp._core.errors import ConfigError, unknown_name
from offramp.training.strategies.base import Inputs, Losses, Moment, Strategy

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from offramp.model.base import SegmentedModel
    from offramp.model.multi_exit import MultiExitForSequenceClassification

CLIP = ("all", "segment")


class Sweet(Strategy):
    """SWEET (Rotem 2023): layers `l_{i-1}+1 … l_i` and head i are updated only by exit i's loss.

    The state that leaves a segment is cut from the graph. The backward pass of a segment runs as soon as its loss
    is computed, so only the activations of one segment are in memory. Tables that all layers share by construction
    (relative positions) are cut too, and so belong to the first exit.

    Args:
        clip: what the clipped norm is of. `all`, as in the released code: the gradients of all segments together, so
            the size of one segment's gradient changes the updates of the others. `segment`: each segment's own, so
            each is trained as if it were alone on the segments below it, to the bit (without dropout, whose random
            numbers are one stream).
    """

    name = "sweet"
    label = "SWEET"
    cuts_graph = True
    claim = 1.1

    def __init__(self, clip: str = "all") -> None:
        if clip not in CLIP:
            raise ConfigError(unknown_name("clip of sweet", clip, CLIP))
        self.clip = clip

    def clip_groups(self, model: SegmentedModel) -> list[list[Parameter]]:
        if self.clip == "all":
            return super().clip_groups(model)
        return cast("MultiExitForSequenceClassification", model).parameters_by_segment()

    def losses(self, model: SegmentedModel, inputs: Inputs, labels: Tensor, moment: Moment) -> Losses:
        from offramp.training.strategies.losses import head_loss

        state = model.start(inputs)
        for k in range(len(model.exit_layers)):
            state = model.segment(k, state)
            loss = head_loss(model, k, state, labels)
            state = state.detach()
            yield loss
