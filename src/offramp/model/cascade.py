"""The Multi-Model baseline: classifiers of growing depth that run one after another until one is confident."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from offramp.backbones import BackboneState, truncated_config
from offramp.costs import CostModel
from offramp.model.base import SegmentedModel
from offramp.model.config import MultiExitConfig, check_exits
from offramp.model.multi_exit import MultiExitForSequenceClassification


class MultiModelConfig(MultiExitConfig):
    """Configuration of `MultiModelForSequenceClassification`: one member for each of `exits`."""

    model_type = "offramp-cascade"

    def __init__(self, **kwargs: Any) -> None:  # otherwise the library would make a dataclass's
        super().__init__(**kwargs)

    def member(self, k: int) -> MultiExitConfig:
        """Config of member `k`: the first `exits[k]` layers with one exit at their end."""
        depth = self.exits[k]
        return MultiExitConfig(
            backbone_config=truncated_config(self.backbone, depth),
            exits=[depth],
            pooling=self.pooling,
            gates=self.gates,
            kind=self.kind,
            classifier_dropout=self.classifier_dropout,
            max_tokens=self.max_tokens,
            pair=self.pair,
            tokenizer_check=self.tokenizer_check,
            strategy=self.strategy,
            id2label=self.id2label,
            label2id=self.label2id,
        )


@dataclass(frozen=True)
class CascadeState:
    """A batch in the cascade: each member starts again from the inputs."""

    inputs: dict[str, Any]
    reached: BackboneState | None = None

    def take(self, rows: Tensor) -> Self:
        inputs = {
            k: [embeds[rows] for embeds in v] if k == "inputs_embeds" else v[rows]
            for k, v in self.inputs.items()
        }
        return replace(self, inputs=inputs, reached=None if self.reached is None else self.reached.take(rows))

    def join(self, others: Sequence[Self]) -> Self:
        """These texts followed by others of the same padded length; the states of earlier members are dropped."""
        states = (self, *others)
        inputs = {
            name: [torch.cat(tables) for tables in zip(*(s.inputs[name] for s in states), strict=True)]
            if isinstance(value, list)
            else torch.cat([s.inputs[name] for s in states])
            for name, value in self.inputs.items()
        }
        return replace(self, inputs=inputs, reached=None)

    def detach(self) -> Self:
        """The state cut from the graph; only the last member's state has a graph."""
        return replace(self, reached=None if self.reached is None else self.reached.detach())


class MultiModelForSequenceClassification(SegmentedModel):
    """A cascade of independent classifiers behind the interface of a multi-exit model (SWEET paper, "MM").

    Member k is the first `exits[k]` layers of the encoder with one exit. Exit k costs all members up
    to k, since each starts from the text again.
    """

    config_class = MultiModelConfig
    config: MultiModelConfig

    def __init__(self, config: MultiModelConfig) -> None:
        super().__init__(config)
        check_exits(config.exits, config.backbone.num_hidden_layers)
        self.members = nn.ModuleList(
            MultiExitForSequenceClassification(config.member(k)) for k in range(len(config.exits))
        )
        self.post_init()

    @classmethod
    def from_encoder(cls, config: MultiModelConfig, encoder: PreTrainedModel, *, seed: int) -> Self:
        with torch.random.fork_rng(devices=[]):
            model = cls(config)
        for k in range(len(config.exits)):
            member = MultiExitForSequenceClassification.from_encoder(config.member(k), encoder, seed=seed + k)
            model.member(k).load_state_dict(member.state_dict())
        return model

    def member(self, k: int) -> MultiExitForSequenceClassification:
        """Classifier `k` (0-based), trained and run alone."""
        return cast(MultiExitForSequenceClassification, self.members[k])

    def start(self, inputs: Mapping[str, Any]) -> CascadeState:
        return CascadeState(dict(inputs))

    def segment(self, k: int, state: CascadeState) -> CascadeState:
        inputs = dict(state.inputs)
        if "inputs_embeds" in inputs:
            inputs["inputs_embeds"] = [inputs["inputs_embeds"][k]]
        member = self.member(k)
        return replace(state, reached=member.segment(0, member.start(inputs)))

    def head(self, k: int, state: CascadeState) -> tuple[Tensor, Tensor | None]:
        return self.member(k).head(0, cast(BackboneState, state.reached))

    def embedding_tables(self) -> list[nn.Embedding]:
        return [self.member(k).embedding_tables()[0] for k in range(len(self.members))]

    def _add_costs(self, coefficients: NDArray[np.float64]) -> CostModel:
        members = coefficients.sum(axis=1)
        return CostModel(np.cumsum(members, axis=0), members[-1])
