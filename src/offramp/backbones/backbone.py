"""An unmodified encoder, run one layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from offramp._core.errors import ModelError
from offramp.backbones.specs import Context, Inputs, Tensors, spec_of


@dataclass(frozen=True)
class BackboneState:
    """A batch on its way through the layers.

    Attributes:
        hidden: hidden states, (batch, length, dim).
        attention_mask: 1 for a token and 0 for padding, (batch, length).
        rows: further tensors that layers need, with the batch as their first dimension.
        shared: further tensors that layers need, the same for every row.
    """

    hidden: Tensor
    attention_mask: Tensor
    rows: Tensors = field(default_factory=dict)
    shared: Tensors = field(default_factory=dict)

    def take(self, rows: Tensor) -> BackboneState:
        """Some rows of the batch, in the order given.

        Args:
            rows: row indices, int64, (kept,).

        Returns:
            A state whose further run gives the same as a run of the complete batch for these rows.
        """
        kept = {name: None if value is None else value[rows] for name, value in self.rows.items()}
        return replace(self, hidden=self.hidden[rows], attention_mask=self.attention_mask[rows], rows=kept)

    def join(self, others: Sequence[BackboneState]) -> BackboneState:
        """This batch followed by others of the same padded length."""
        states = (self, *others)
        rows = {name: _joined_rows(name, states) for name in self.rows}
        return replace(
            self,
            hidden=torch.cat([state.hidden for state in states]),
            attention_mask=torch.cat([state.attention_mask for state in states]),
            rows=rows,
        )

    def detach(self) -> BackboneState:
        """The same values, cut from the graph: no gradient reaches lower layers or shared tensors."""
        return replace(
            self, hidden=self.hidden.detach(), rows=_detached(self.rows), shared=_detached(self.shared)
        )


def _joined_rows(name: str, states: Sequence[BackboneState]) -> Tensor | None:
    """One tensor of several batches; a mask that hides nothing replaces one that the library skipped."""
    given = [state.rows[name] for state in states]
    like = next((value for value in given if value is not None), None)
    if like is None:
        return None
    visible = 0.0 if like.is_floating_point() else 1  # additive masks, or those that mark visible tokens
    return torch.cat(
        [
            like.new_full((len(state.hidden), *like.shape[1:]), visible) if value is None else value
            for state, value in zip(states, given, strict=True)
        ]
    )


def _detached(tensors: Tensors) -> Tensors:
    return {name: None if value is None else value.detach() for name, value in tensors.items()}


class Backbone:
    """Drives the layers of an encoder; it owns no parameters and does not change the model.

    Args:
        model: a bare encoder without a head, as from `AutoModel`.

    Raises:
        ModelError: a model with a head, a decoder, or an architecture that `SPECS` does not describe.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.spec = spec_of(model.config)
        self.depth = int(model.config.num_hidden_layers)
        modules = dict(model.named_modules())
        for path in (self.spec.embeddings, self.spec.layers):
            if path not in modules:
                raise ModelError(_no_part(model, path))
        self.layers = _layers(model, list(modules[self.spec.layers].children()), self.depth)
        self._embeddings = modules[self.spec.embeddings]
        self._projection = modules.get(self.spec.projection or "-")
        #: The pretrained pooler's dense layer (dim to dim; a tanh follows it), or None.
        self.pooler = modules.get(self.spec.pooler or "-")
        #: The norm after the last layer, or None. `layer` never applies it: each exit does.
        self.final_norm = modules.get(self.spec.final_norm or "-")

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of token embeddings."""
        return cast(nn.Embedding, self.model.get_input_embeddings())

    def embed(self, inputs: Inputs) -> BackboneState:
        """Run the embeddings, and make the tensors that all layers need.

        Args:
            inputs: `input_ids` (batch, length); optionally `attention_mask` and `token_type_ids` alike,
                and `inputs_embeds` (batch, length, embedding dim), which replace the rows of the table; the
                ids then still mark padding. Token types that the model lacks are ignored.

        Returns:
            The state before the first layer.

        Raises:
            ModelError: no `input_ids`, different shapes, or an attention without plain masks.
        """
        ids, mask = _checked(inputs)
        embedded = self._embeddings(**self._embedding_arguments(inputs, ids, mask))
        if self._projection is not None:
            embedded = self._projection(embedded)
        context = self.spec.context(self.model, {**inputs, "attention_mask": mask}, embedded)
        _check_context(context)
        return BackboneState(embedded, mask, context.rows, context.shared)

    def layer(self, i: int, state: BackboneState) -> BackboneState:
        """Run one layer.

        Args:
            i: the layer, counted from 1.
            state: the state after layer `i - 1`; it does not change.

        Returns:
            The state after layer `i`, without the final norm.

        Raises:
            ModelError: the layer does not exist.
        """
        if not 1 <= i <= self.depth:
            raise ModelError(f"expected a layer in 1..{self.depth} (layers count from 1), got {i}")
        context = Context(state.rows, state.shared)
        hidden = self.spec.call(self.model, self.layers[i - 1], i, state.hidden, context)
        return replace(state, hidden=hidden)

    def _embedding_arguments(self, inputs: Inputs, ids: Tensor, mask: Tensor) -> Tensors:
        """The arguments of the embeddings module."""
        values, types = inputs.get("inputs_embeds"), inputs.get("token_type_ids")
        arguments: Tensors = {"inputs_embeds": values}
        # Some models prefer ids to values, so they get both only where positions are counted from the ids.
        arguments["input_ids"] = ids if values is None or self.spec.positions_from_ids else None
        # A tokenizer may mark the second text of a pair with 1 where the model has one type only.
        if self.spec.token_types and getattr(self.model.config, "type_vocab_size", 2) > 1:
            arguments["token_type_ids"] = types
        if self.spec.masked_embeddings:
            arguments["mask"] = mask
        return arguments


def _checked(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both (batch, length) integers."""
    ids = inputs.get("input_ids")
    if ids is None:
        raise ModelError(f"expected 'input_ids' (beside 'inputs_embeds' too), got {sorted(inputs)}")
    for name in ("attention_mask", "token_type_ids", "inputs_embeds"):
        value = inputs.get(name)
        if value is not None and value.shape[:2] != ids.shape:
            shapes = f"{tuple(ids.shape)}, got {tuple(value.shape)}"
            raise ModelError(f"expected {name!r} to have the (batch, length) of 'input_ids', {shapes}")
    mask = inputs.get("attention_mask")
    return ids, ids.new_ones(ids.shape) if mask is None else mask.to(ids.dtype)


def _check_context(context: Context) -> None:
    for name, value in context.rows.items():
        if value is not None and not isinstance(value, Tensor):
            raise ModelError(
                f"the attention in use makes {name!r} a {type(value).__name__}, which cannot be cut to some "
                "rows: load the model with attn_implementation='sdpa' or 'eager'"
            )


def _layers(model: PreTrainedModel, stack: list[nn.Module], depth: int) -> tuple[nn.Module, ...]:
    """The module of each layer; in ALBERT a stretch of layers shares one."""
    if len(stack) not in (depth, getattr(model.config, "num_hidden_groups", depth)):
        raise ModelError(
            f"expected {depth} layers as the config says, got {len(stack)} modules: correct `layers` in "
            f"SPECS[{model.config.model_type!r}], or load the encoder with load_backbone(name, depth=...)"
        )
    # The library's own formula for ALBERT; a full list stays the same.
    return tuple(stack[int(i / (depth / len(stack)))] for i in range(depth))


def _no_part(model: PreTrainedModel, path: str) -> str:
    name = type(model).__name__
    if model.base_model is not model:
        return f"expected a bare encoder, got {name} with a head: pass model.base_model"
    return f"{name} has no module {path!r}: correct the paths in SPECS[{model.config.model_type!r}]"
