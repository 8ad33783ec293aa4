"""An encoder with exits after some of its layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from offramp._core.errors import ModelError
from offramp.backbones import Backbone, BackboneState, load_backbone, spec_of
from offramp.costs import CostModel
from offramp.model.base import MultiExitOutput, SegmentedModel
from offramp.model.config import DEFAULT_MAX_LENGTH, MultiExitConfig, check_exits, default_exits
from offramp.model.heads import ExitHead

__all__ = ["MultiExitForSequenceClassification", "MultiExitOutput"]


def check_length(max_length: int | None, encoder: PreTrainedModel, tokenizer: Any) -> int:
    """The requested or default maximum length; `ModelError` beyond the limit of encoder and tokenizer."""
    positions = getattr(encoder.config, "max_position_embeddings", DEFAULT_MAX_LENGTH)
    if spec_of(encoder.config).positions_from_ids:  # these count from the id after the padding token's
        positions -= (Backbone(encoder).word_embeddings.padding_idx or 0) + 1
    limit = min(positions, tokenizer.model_max_length)
    if max_length is None:
        return int(min(DEFAULT_MAX_LENGTH, limit))
    if not 4 <= max_length <= limit:
        raise ModelError(f"max_length must lie in 4..{limit} for this encoder, got {max_length}")
    return max_length


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
        self.backbone = AutoModel.from_config(config.backbone)
        spec = spec_of(config.backbone)
        if spec.pooler is not None:  # each exit has its own pooler
            setattr(self.backbone, spec.pooler.split(".")[0], None)
        self.driver = Backbone(self.backbone)  # no module, since it has no parameters
        heads = [
            ExitHead(
                int(config.backbone.hidden_size),
                1 if config.kind == "regression" else len(config.id2label or ()),
                pooling=config.pooling,
                gate=config.gates,
                dropout=config.classifier_dropout,
                norm=copy.deepcopy(self.driver.final_norm),
            )
            for _ in config.exits
        ]
        self.heads = nn.ModuleList(heads)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        exits: Sequence[int] | None = None,
        *,
        labels: Sequence[str] | int = 2,
        kind: str = "classification",
        pooling: str | None = None,
        gates: bool = False,
        max_length: int | None = None,
        seed: int = 0,
    ) -> Self:
        """A fresh multi-exit model on a pretrained encoder; the encoder is cut to the last exit layer.

        Args:
            backbone: a packaged name (`minilm-l6`, `mpnet-base`), a folder, or a hub id.
            exits: exit layers, counted from 1, increasing; by default four, see `default_exits`.
            labels: class names in the order of the class indices, or their number; ignored for regression.
            kind: `classification` or `regression`.
            pooling: `mean`, `first` or `pooler`; by default the backbone's.
            gates: whether each exit carries a learned gate.
            max_length: longest input in tokens, special tokens included; by default 256 or the encoder's limit.
            seed: for the weights of the heads.

        Raises:
            ModelError: an unknown encoder, exit layers that do not fit it, or gates for regression.
        """
        encoder, tokenizer = load_backbone(backbone)
        depth = encoder.config.num_hidden_layers
        exits = check_exits(default_exits(depth) if exits is None else exits, depth)
        if exits[-1] < depth:
            encoder, tokenizer = load_backbone(backbone, depth=exits[-1])
        max_length = check_length(max_length, encoder, tokenizer)
        config = cls.config_for(
            encoder, exits, labels=labels, kind=kind, pooling=pooling, gates=gates, max_length=max_length
        )
        model = cls.from_encoder(config, encoder, seed=seed)
        model.tokenizer = tokenizer
        return model

    @staticmethod
    def config_for(
        encoder: PreTrainedModel,
        exits: Sequence[int],
        *,
        labels: Sequence[str] | int,
        kind: str,
        pooling: str | None,
        gates: bool,
        max_length: int,
    ) -> MultiExitConfig:
        """The config of a multi-exit model on `encoder`."""
        names = [str(i) for i in range(labels)] if isinstance(labels, int) else [str(name) for name in labels]
        if kind == "regression" and gates:
            raise ModelError(
                "a gate predicts whether an exit's class is right, and scores have no class: leave gates out"
            )
        if kind == "regression":
            names = ["score"]
        elif len(names) < 2:
            raise ModelError(
                f"classification needs at least 2 classes, got {names}; for scores use kind='regression'"
            )
        return MultiExitConfig(
            backbone_config=encoder.config,
            exits=exits,
            pooling=pooling or Backbone(encoder).spec.default_pooling,
            gates=gates,
            kind=kind,
            max_tokens=max_length,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )

    @classmethod
    def from_encoder(cls, config: MultiExitConfig, encoder: PreTrainedModel, *, seed: int) -> Self:
        """A model with the weights of `encoder`, poolers started from its pooler, and seeded heads."""
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

    def start(self, inputs: Mapping[str, Any]) -> BackboneState:
        """Embed a batch; `inputs_embeds` is a list of one tensor, as for every segmented model."""
        embeds = inputs.get("inputs_embeds")
        return self.driver.embed(inputs if embeds is None else {**inputs, "inputs_embeds": embeds[0]})

    def segment(self, k: int, state: BackboneState) -> BackboneState:
        """Run the layers between exit `k - 1` and exit `k`."""
        first = self.exit_layers[k - 1] if k else 0
        for layer in range(first + 1, self.exit_layers[k] + 1):
            state = self.driver.layer(layer, state)
        return state

    def head(self, k: int, state: BackboneState) -> tuple[Tensor, Tensor | None]:
        """Exit `k`'s logits and gate logits."""
        head = cast(ExitHead, self.heads[k])
        answer: tuple[Tensor, Tensor | None] = head(state.hidden, state.attention_mask)
        return answer

    def embedding_tables(self) -> list[nn.Embedding]:
        """The one table of token embeddings."""
        return [self.backbone.get_input_embeddings()]

    def _add_costs(self, coefficients: NDArray[np.float64]) -> CostModel:
        segments, heads = coefficients[:, 0], coefficients[:, 1]
        return CostModel(np.cumsum(segments + heads, axis=0), segments.sum(axis=0) + heads[-1])
