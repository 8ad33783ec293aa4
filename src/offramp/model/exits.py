"""A classifier cut at its exits: its segments, its heads, one pass through all of them, and their FLOPs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from offramp._core.errors import DataError, ModelError
from offramp._core.trace import Kind
from offramp.backbones import BackboneState, spec_of
from offramp.costs import CostModel, count_flops, fit_polynomial
from offramp.model.class_space import ClassSpace
from offramp.model.config import MultiExitConfig
from offramp.model.heads import ExitHead, MultiExitOutput, exit_loss
from offramp.model.linear_exit import LayerZero


class ExitClassifier(LayerZero, PreTrainedModel):
    """A classifier cut at its exits: `start`, then `segment` and `head` for each exit in turn."""

    config_class: type[MultiExitConfig] = MultiExitConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = False

    config: MultiExitConfig

    @abstractmethod
    def start(self, inputs: Mapping[str, Any]) -> Any:
        """The state before the first segment."""

    @abstractmethod
    def segment(self, k: int, state: Any) -> Any:
        """Run segment `k` (0-based): the state at exit `k`."""

    @abstractmethod
    def head(self, k: int, state: Any) -> tuple[Tensor, Tensor | None]:
        """Exit `k`'s logits `(batch, classes)` and gate logits `(batch,)` or None, float32."""

    @abstractmethod
    def exit_head(self, k: int) -> ExitHead:
        """The module of exit `k`, which is not layer 0."""

    @abstractmethod
    def reached(self, state: Any) -> BackboneState:
        """The hidden states that the head of an exit reads."""

    def class_spaces(self) -> list[ClassSpace | None]:
        """The space of each exit's classifier, for its weights as they are now; None for layer 0."""
        return [
            ClassSpace(self.exit_head(k).classifier) if layer else None
            for k, layer in enumerate(self.exit_layers)
        ]

    def head_and_residual(
        self, k: int, state: Any, space: ClassSpace | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """What `head` returns, and the share `(batch,)` of the features outside exit `k`'s class space.

        It is 0 at layer 0: nearly all of its sparse features lie outside, for every text.
        """
        if space is None:
            logits, gate = self.head(k, state)
            return logits, gate, logits.new_zeros(logits.shape[:1])
        head, reached = self.exit_head(k), self.reached(state)
        pooled = head.pool(reached.hidden, reached.attention_mask)
        logits, gate = head.classify(pooled)
        return logits, gate, space(pooled, logits)

    @abstractmethod
    def embedding_tables(self) -> list[nn.Embedding]:
        """The token-embedding tables: one, or one for each member of a cascade."""

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Backbone layers of the exits, counted from 1; 0 is the stage before the first layer."""
        return tuple(self.config.exits)

    @property
    def kind(self) -> Kind:
        """`classification` or `regression`."""
        return cast(Kind, self.config.kind)

    @property
    def gates(self) -> bool:
        """Whether the exits have learned gates."""
        return self.config.gates

    @property
    def reads_padding(self) -> bool:
        """Whether longer texts in the same batch change an answer; see `BackboneSpec`."""
        return spec_of(self.config.backbone).reads_padding

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty for regression."""
        if self.kind == "regression":
            return ()
        names = cast(dict[int, str], self.config.id2label)
        return tuple(names[i] for i in range(len(names)))

    @property
    def num_labels(self) -> int:
        """Number of classes, 1 for regression: the outputs of each exit."""
        return len(self.labels) or 1

    @property
    def pair(self) -> bool | None:
        """Whether the model was trained on pairs of texts; None if unknown."""
        return self.config.pair

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.config.max_tokens

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Sequence[Tensor] | Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> MultiExitOutput | tuple[Any, ...]:
        """Run every exit on a batch.

        Args:
            input_ids: `(batch, length)`; needed even with `inputs_embeds`, for the positions.
            attention_mask: `(batch, length)`, 1 for tokens, 0 for padding; all ones by default.
            token_type_ids: `(batch, length)`, ignored by encoders without token types.
            inputs_embeds: one `(batch, length, dim)` tensor for each of `embedding_tables()`; a single one may stand
                alone.
            labels: `(batch,)` classes or regression targets.
            return_dict: False returns a tuple, in the order of `MultiExitOutput`, without what is None.
            output_hidden_states, output_attentions: not available.

        Raises:
            DataError: no `input_ids`, labels of another shape or type, or hidden states or attentions wanted.
        """
        if output_hidden_states or output_attentions:
            raise DataError(
                "a multi-exit model returns no hidden states or attentions: call start and segment for the states"
            )
        if input_ids is None:
            raise DataError("forward needs input_ids (batch, length); give them even with inputs_embeds")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if isinstance(inputs_embeds, Tensor):
            inputs_embeds = [inputs_embeds]
        optional = {"token_type_ids": token_type_ids, "inputs_embeds": inputs_embeds}
        state = self.start(inputs | {name: value for name, value in optional.items() if value is not None})
        logits: list[Tensor] = []
        gates: list[Tensor] = []
        for k in range(len(self.exit_layers)):
            state = self.segment(k, state)
            scores, gate = self.head(k, state)
            logits.append(scores)
            if gate is not None:
                gates.append(gate.sigmoid())
        loss = None
        if labels is not None:  # layer 0 is fitted, not trained
            losses = [
                exit_loss(z, labels) for z, layer in zip(logits, self.exit_layers, strict=True) if layer
            ]
            loss = torch.stack(losses).sum()
        output = MultiExitOutput(
            loss=loss,
            logits=logits[-1],
            exit_logits=torch.stack(logits, dim=1),
            gates=torch.stack(gates, dim=1) if gates else None,
        )
        return output.to_tuple() if return_dict is False else output

    def flops(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """FLOPs until each exit `(examples, exits)` and of the full model `(examples,)`, by length."""
        if self.config.costs is None:
            self.config.costs = self._count_flops().to_dict()
        try:
            return CostModel.from_dict(self.config.costs)(lengths)
        except ModelError as error:
            raise ModelError(
                f"the costs in the model's config.json are damaged ({error}): remove them there to count "
                "them again"
            ) from error

    def _count_flops(self) -> CostModel:
        """Count the FLOPs of each segment and head on the real modules."""
        training, tracked = self.training, [p for p in self.parameters() if p.requires_grad]
        self.eval().requires_grad_(False)  # the counter fails on tables that layers receive (DeBERTa)
        try:
            with self.without_layer_zero():
                coefficients = fit_polynomial(self._segment_flops, self.max_length).reshape(-1, 2, 3)
        finally:
            self.train(training)
            for parameter in tracked:
                parameter.requires_grad_()
        costs = self._add_costs(coefficients)
        return costs if self.linear is None else costs.after(self.linear.stage.flops())

    def _segment_flops(self, length: int) -> NDArray[np.float64]:
        """FLOPs of segment and head for each exit `(exits · 2,)` on one text of `length` tokens."""
        ids = torch.ones(1, length, dtype=torch.long, device=self.device)
        state = self.start({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        counts: list[int] = []
        for k in range(len(self.exit_layers)):
            state, segment = count_flops(partial(self.segment, k, state))
            _, head = count_flops(partial(self.head, k, state))
            counts += (segment, head)
        return np.array(counts, dtype=np.float64)

    @abstractmethod
    def _add_costs(self, coefficients: NDArray[np.float64]) -> CostModel:
        """Cumulative costs from the coefficients `(exits, 2, 3)` of segments and heads."""
