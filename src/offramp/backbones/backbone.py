"""An unmodified encoder, run one layer at a time, and a check against the library's own forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        """Some rows `(kept,)` of the batch, in the given order; they continue as in the complete batch."""
        kept = {name: None if value is None else value[rows] for name, value in self.rows.items()}
        return replace(self, hidden=self.hidden[rows], attention_mask=self.attention_mask[rows], rows=kept)

    def join(self, others: Sequence[BackboneState]) -> BackboneState:
        """This batch followed by others of the same padded length."""
        states = (self, *others)
        return replace(
            self,
            hidden=torch.cat([state.hidden for state in states]),
            attention_mask=torch.cat([state.attention_mask for state in states]),
            rows={name: _joined_rows(name, states) for name in self.rows},
        )

    def detach(self) -> BackboneState:
        """The same values, cut from the graph: no gradient reaches lower layers or shared tensors."""
        return replace(
            self, hidden=self.hidden.detach(), rows=_detached(self.rows), shared=_detached(self.shared)
        )


def _joined_rows(name: str, states: Sequence[BackboneState]) -> Tensor | None:
    """One tensor of several batches; a mask that hides nothing replaces a skipped mask."""
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
    """Runs the layers of an encoder. It owns no parameters and does not change the model.

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
            if path in modules:
                continue
            name = type(model).__name__
            if model.base_model is not model:
                raise ModelError(f"expected a bare encoder, got {name} with a head: pass model.base_model")
            raise ModelError(
                f"{name} has no module {path!r}: correct the paths in SPECS[{model.config.model_type!r}]"
            )
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
        """Run the embeddings, and make the tensors that all layers need: the state before the first layer.

        Args:
            inputs: `input_ids` (batch, length); optionally `attention_mask` and `token_type_ids` alike,
                and `inputs_embeds` (batch, length, embedding dim), which replace the rows of the table; the
                ids then still mark padding. Token types that the model lacks are ignored.

        Raises:
            ModelError: no `input_ids`, different shapes, or an attention without plain masks.
        """
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None:
            raise ModelError(f"expected 'input_ids' (even with 'inputs_embeds'), got {sorted(inputs)}")
        for name in ("attention_mask", "token_type_ids", "inputs_embeds"):
            value = inputs.get(name)
            if value is not None and value.shape[:2] != ids.shape:
                shapes = f"{tuple(ids.shape)}, got {tuple(value.shape)}"
                raise ModelError(f"expected {name!r} to have the (batch, length) of 'input_ids', {shapes}")
        mask = torch.ones_like(ids) if mask is None else mask.to(ids.dtype)
        embedded = self._embeddings(**self._embedding_arguments(inputs, ids, mask))
        if self._projection is not None:
            embedded = self._projection(embedded)
        context = self.spec.context(self.model, {**inputs, "attention_mask": mask}, embedded)
        for name, row in context.rows.items():
            if row is not None and not isinstance(row, Tensor):
                raise ModelError(
                    f"the attention in use makes {name!r} a {type(row).__name__}, which cannot be cut to some "
                    "rows: load the model with attn_implementation='sdpa' or 'eager'"
                )
        return BackboneState(embedded, mask, context.rows, context.shared)

    def layer(self, i: int, state: BackboneState) -> BackboneState:
        """The state after layer `i`, counted from 1, without the final norm.

        Args:
            i: the layer; `ModelError` if it does not exist.
            state: the state after layer `i - 1`; it does not change.
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
        # Some models prefer ids to values, so they get both only if positions are counted from the ids.
        arguments["input_ids"] = ids if values is None or self.spec.positions_from_ids else None
        # A tokenizer may mark the second text of a pair with 1 even if the model has only one type.
        if self.spec.token_types and getattr(self.model.config, "type_vocab_size", 2) > 1:
            arguments["token_type_ids"] = types
        if self.spec.masked_embeddings:
            arguments["mask"] = mask
        return arguments


def _layers(model: PreTrainedModel, stack: list[nn.Module], depth: int) -> tuple[nn.Module, ...]:
    """The module of each layer; in ALBERT a stretch of layers shares one."""
    if len(stack) not in (depth, getattr(model.config, "num_hidden_groups", depth)):
        raise ModelError(
            f"expected {depth} layers as the config says, got {len(stack)} modules: correct `layers` in "
            f"SPECS[{model.config.model_type!r}], or load the encoder with load_backbone(name, depth=...)"
        )
    return tuple(stack[k] for k in shared_layers(depth, len(stack)))


def shared_layers(depth: int, groups: int) -> list[int]:
    """For each layer the group of layers that it shares a module with, by the library's own formula for ALBERT."""
    return [int(i / (depth / groups)) for i in range(depth)]


def check_parity(model: PreTrainedModel, *, batch: int = 4, length: int = 12, seed: int = 0) -> float:
    """The largest difference between the hidden states here and in the library's own forward.

    Args:
        model: a bare encoder whose architecture `SPECS` describes.
        batch, length, seed: of random token ids, with padding on the right, on the left, and without any.

    Returns:
        The largest absolute difference over embeddings, all layers and the final norm: below 1e-5 in float32 for a
        correct description, NaN if either side has one.

    Raises:
        ModelError: an architecture that `SPECS` does not describe.
    """
    backbone = Backbone(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            differences = [
                difference
                for padding in ("right", "left", "none")
                for difference in _differences(backbone, random_inputs(model, padding, batch, length, seed))
            ]
    finally:
        model.train(training)
    return float(torch.stack(differences).max())


def random_inputs(
    model: PreTrainedModel, padding: str, batch: int = 4, length: int = 12, seed: int = 0
) -> dict[str, Tensor]:
    """Random `input_ids` and their `attention_mask`, (batch, length); each row has more padding than the row before.

    Args:
        padding: "right", "left" or "none".
    """
    generator = torch.Generator().manual_seed(seed)
    pad = model.config.pad_token_id or 0
    ids = torch.randint(model.config.vocab_size, (batch, length), generator=generator)
    ids[ids == pad] = (pad + 1) % model.config.vocab_size
    kept = length - torch.arange(batch)[:, None] % length if padding != "none" else torch.tensor([[length]])
    positions = torch.arange(length)
    mask = (positions.flip(0) if padding == "left" else positions) < kept
    ids = torch.where(mask, ids, pad)
    return {"input_ids": ids.to(model.device), "attention_mask": mask.long().expand_as(ids).to(model.device)}


def _differences(backbone: Backbone, inputs: dict[str, Tensor]) -> Iterator[Tensor]:
    """The largest difference after the embeddings, after each layer, and after the final norm."""
    output = backbone.model(**inputs, output_hidden_states=True)
    expected = output.hidden_states
    # ALBERT may run several inner layers for one layer of its config, and reports each.
    stride = (len(expected) - 1) // backbone.depth
    state = backbone.embed(inputs)
    yield (state.hidden - expected[0]).abs().max()
    for i in range(1, backbone.depth + 1):
        state = backbone.layer(i, state)
        if i < backbone.depth:  # the library's last hidden state comes after the final norm
            yield (state.hidden - expected[i * stride]).abs().max()
    norm = backbone.final_norm or torch.nn.Identity()
    yield (norm(state.hidden) - output.last_hidden_state).abs().max()
