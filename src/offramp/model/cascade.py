"""The Multi-Model baseline: classifiers of growing depth that run one after another until one is confident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from offramp.model.heads import ExitHead
from offramp.model.linear_exit import join_inputs, take_inputs
from offramp.model.multi_exit import MultiExitForSequenceClassification


class MultiModelConfig(MultiExitConfig):
    """Configuration of `MultiModelForSequenceClassification`: one member for each of `exits`."""

    model_type = "offramp-cascade"

    def __init__(self, **kwargs: Any) -> None:  # otherwise the library would make a dataclass's
        super().__init__(**kwargs)

    def member(self, k: int) -> MultiExitConfig:
        """Config of member `k`: the encoder's first layers up to its exit `k`, with one exit at their end."""
        depth = [layer for layer in self.exits if layer][k]
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
        reached = None if self.reached is None else self.reached.take(rows)
        return replace(self, inputs=take_inputs(self.inputs, rows), reached=reached)

    def join(self, others: Sequence[Self]) -> Self:
        """These texts followed by others of the same padded length; the states of earlier members are dropped."""
        inputs = join_inputs([state.inputs for state in (self, *others)])
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
            MultiExitForSequenceClassification(config.member(k)) for k in range(sum(map(bool, config.exits)))
        )
        self.linear = self.make_linear()
        self.post_init()

    @classmethod
    def from_encoder(cls, config: MultiModelConfig, encoder: PreTrainedModel, *, seed: int) -> Self:
        with torch.random.fork_rng(devices=[]):
            model = cls(config)
        for k, own in enumerate(model.members):
            member = MultiExitForSequenceClassification.from_encoder(config.member(k), encoder, seed=seed + k)
            own.load_state_dict(member.state_dict())
        return model

    def member(self, k: int) -> MultiExitForSequenceClassification:
        """The classifier of exit `k` (0-based), trained and run alone."""
        ahead = len(self.exit_layers) - len(self.members)  # layer 0 is no member
        return cast(MultiExitForSequenceClassification, self.members[k - ahead])

    def start(self, inputs: Mapping[str, Any]) -> CascadeState:
        return CascadeState(dict(inputs))

    def segment(self, k: int, state: CascadeState) -> CascadeState:
        if self.exit_layers[k] == 0:
            return state
        inputs = dict(state.inputs)
        if "inputs_embeds" in inputs:
            inputs["inputs_embeds"] = [inputs["inputs_embeds"][k - len(self.exit_layers) + len(self.members)]]
        member = self.member(k)
        return replace(state, reached=cast(BackboneState, member.segment(0, member.start(inputs))))

    def head(self, k: int, state: CascadeState) -> tuple[Tensor, Tensor | None]:
        if self.linear is not None and self.exit_layers[k] == 0:
            return self.linear_head(state.inputs, tables=len(self.members))
        return self.member(k).head(0, self.reached(state))

    def exit_head(self, k: int) -> ExitHead:
        return self.member(k).exit_head(0)

    def reached(self, state: CascadeState) -> BackboneState:
        return cast(BackboneState, state.reached)

    def embedding_tables(self) -> list[nn.Embedding]:
        members = cast(Iterable[MultiExitForSequenceClassification], self.members)
        return [*(member.embedding_tables()[0] for member in members), *self.linear_tables()]

    def _add_costs(self, coefficients: NDArray[np.float64]) -> CostModel:
        members = coefficients.sum(axis=1)
        return CostModel(np.cumsum(members, axis=0), members[-1])
