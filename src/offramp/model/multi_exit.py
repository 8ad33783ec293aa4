"""An encoder with exits after some of its layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from offramp.backbones import Backbone, BackboneState, spec_of
from offramp.costs import CostModel
from offramp.model.base import SegmentedModel
from offramp.model.config import MultiExitConfig, check_exits
from offramp.model.heads import ExitHead
from offramp.model.linear_exit import Unread


class MultiExitForSequenceClassification(SegmentedModel):
    """A text classifier that can leave after any of its exit layers.

    Every exit has its own pooling, classifier and, optionally, learned gate. The encoder is the library's own class,
    cut to the last exit layer.

    Args:
        config: a `MultiExitConfig`; `from_backbone` makes one from a pretrained encoder.
    """

    def __init__(self, config: MultiExitConfig) -> None:
        super().__init__(config)
        check_exits(config.exits, config.backbone.num_hidden_layers)
        # The type in which the library is loading: the encoder's own config may name another.
        self.backbone = AutoModel.from_config(config.backbone, dtype=torch.get_default_dtype())
        spec = spec_of(config.backbone)
        if spec.pooler is not None:  # each exit has its own pooler
            setattr(self.backbone, spec.pooler.split(".")[0], None)
        self.driver = Backbone(self.backbone)  # not a module, since it has no parameters
        heads = [
            ExitHead(
                int(config.backbone.hidden_size),
                1 if config.kind == "regression" else len(config.id2label or ()),
                pooling=config.pooling,
                gate=config.gates,
                dropout=config.classifier_dropout,
                norm=copy.deepcopy(self.driver.final_norm),
            )
            for layer in config.exits
            if layer
        ]
        self.heads = nn.ModuleList(heads)
        self.linear = self.make_linear()
        self.post_init()

    @classmethod
    def from_encoder(cls, config: MultiExitConfig, encoder: PreTrainedModel, *, seed: int) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
        pretrained = Backbone(encoder)
        weights = encoder.state_dict()
        model.backbone.load_state_dict({k: weights[k] for k in model.backbone.state_dict()})
        for head in cast(Iterable[ExitHead], model.heads):
            if pretrained.final_norm is not None:
                head.norm.load_state_dict(pretrained.final_norm.state_dict())
            if head.pooler is not None and pretrained.pooler is not None:
                head.pooler.start_from(pretrained.pooler)
        return model

    def parameters_by_layer(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters: first those below all layers, then each layer's.

        Tables that all layers share by construction (relative positions) are below all layers. Parameters that several
        layers share are listed at the first of them.
        """
        layers = [list(layer.parameters()) for layer in self.driver.layers]
        owners = {p: i for i in reversed(range(len(layers))) for p in layers[i]}
        below = [p for p in self.backbone.parameters() if p not in owners]
        return [below, *([p for p in layer if owners[p] == i] for i, layer in enumerate(layers))]

    def parameters_by_segment(self) -> list[list[nn.Parameter]]:
        """The parameters of each segment with its head; the first has those below all layers, too."""
        layers, first = self.parameters_by_layer(), 0
        segments = []
        for last, head in zip(filter(None, self.exit_layers), self.heads, strict=True):
            own = [p for layer in layers[first : last + 1] for p in layer]
            segments.append([*own, *head.parameters()])
            first = last + 1
        return segments

    def start(self, inputs: Mapping[str, Any]) -> BackboneState | Unread:
        """Embed a batch, unless layer 0 comes first; `inputs_embeds` has a tensor for each of `embedding_tables()`."""
        return self.embed(inputs) if self.linear is None else Unread(dict(inputs))

    def embed(self, inputs: Mapping[str, Any]) -> BackboneState:
        """The state before the first layer."""
        embeds = inputs.get("inputs_embeds")
        return self.driver.embed(inputs if embeds is None else {**inputs, "inputs_embeds": embeds[0]})

    def segment(self, k: int, state: BackboneState | Unread) -> BackboneState | Unread:
        if self.exit_layers[k] == 0:
            return state
        if isinstance(state, Unread):
            state = self.embed(state.inputs)
        first = self.exit_layers[k - 1] if k else 0
        for layer in range(first + 1, self.exit_layers[k] + 1):
            state = self.driver.layer(layer, state)
        return state

    def head(self, k: int, state: BackboneState | Unread) -> tuple[Tensor, Tensor | None]:
        if self.linear is not None and self.exit_layers[k] == 0:
            return self.linear_head(cast(Unread, state).inputs, tables=1)
        reached = cast(BackboneState, state)
        answer: tuple[Tensor, Tensor | None] = self.exit_head(k)(reached.hidden, reached.attention_mask)
        return answer

    def exit_head(self, k: int) -> ExitHead:
        return cast(ExitHead, self.heads[k - len(self.exit_layers) + len(self.heads)])

    def reached(self, state: BackboneState | Unread) -> BackboneState:
        return cast(BackboneState, state)

    def embedding_tables(self) -> list[nn.Embedding]:
        return [self.backbone.get_input_embeddings(), *self.linear_tables()]

    def _add_costs(self, coefficients: NDArray[np.float64]) -> CostModel:
        segments, heads = coefficients[:, 0], coefficients[:, 1]
        return CostModel(np.cumsum(segments + heads, axis=0), segments.sum(axis=0) + heads[-1])
