"""Encoders as data: the paths of their modules, and what a layer needs besides the hidden state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask

from offramp._core.errors import ModelError, unknown_name

Inputs = Mapping[str, Tensor]
Tensors = dict[str, Tensor | None]


@dataclass(frozen=True)
class Context:
    """The tensors that layers need besides the hidden state, made once for a batch.

    Attributes:
        rows: tensors whose first dimension is the batch; None if the library skips a mask.
        shared: tensors that are the same for every row.
    """

    rows: Tensors = field(default_factory=dict)
    shared: Tensors = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor | None:
        """A tensor of `rows` or `shared`."""
        return self.rows[name] if name in self.rows else self.shared[name]


# By the library's names of layer kinds.
_MASKS: dict[str, Callable[..., Any]] = {
    "full_attention": create_bidirectional_mask,
    "sliding_attention": create_bidirectional_sliding_window_mask,
}


def masked(model: PreTrainedModel, inputs: Inputs, embedded: Tensor) -> Context:
    """Context of BERT and similar encoders: the attention mask in the form of the current attention."""
    mask = _MASKS["full_attention"](model.config, embedded, inputs["attention_mask"])
    return Context(rows={"attention_mask": mask})


def plain_call(model: PreTrainedModel, layer: nn.Module, i: int, hidden: Tensor, context: Context) -> Tensor:
    """Call a layer with the complete context as keyword arguments."""
    output = layer(hidden, **context.rows, **context.shared)
    return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class BackboneSpec:
    """The description of an encoder, with which an unmodified model runs layer by layer.

    Attributes:
        embeddings: path of the module that embeds token ids.
        layers: path of the module list; a list shorter than the depth (ALBERT) is shared in equal stretches.
        projection: path of a linear map between embeddings and first layer; ignored if a model has none.
        pooler: path of the pooler's dense layer (a tanh follows it); None, or absent in a model, for no pooler.
        final_norm: path of the norm that follows the last layer, for models that normalise before each block.
        token_types: whether the embeddings take `token_type_ids`.
        positions_from_ids: whether positions are counted from the ids without padding (RoBERTa), so the ids are
            needed with `inputs_embeds` too.
        masked_embeddings: whether the embeddings take the attention mask (DeBERTa), as `mask`.
        reads_padding: whether tokens see the padding next to them, as in convolutions over the text (ConvBERT):
            the answers for a text are then the same only in batches of one length.
        default_pooling: how an exit reads a hidden state by default.
        context: `(model, inputs, embedded) -> Context`, called once for a batch.
        call: `(model, layer, i, hidden, context) -> hidden`, called once for a layer, `i` counted from 1.
    """

    embeddings: str = "embeddings"
    layers: str = "encoder.layer"
    projection: str | None = None
    pooler: str | None = "pooler.dense"
    final_norm: str | None = None
    token_types: bool = True
    positions_from_ids: bool = False
    masked_embeddings: bool = False
    reads_padding: bool = False
    # Measured: with first-token pooling the early exits of sentence encoders stay at chance.
    default_pooling: Literal["mean", "first", "pooler"] = "mean"
    context: Callable[[PreTrainedModel, Inputs, Tensor], Context] = masked
    call: Callable[[PreTrainedModel, nn.Module, int, Tensor, Context], Tensor] = plain_call


def _submodule(model: PreTrainedModel, path: str) -> Any:
    """A submodule, whose methods the type checker does not know."""
    return model.get_submodule(path)


def _mpnet(model: PreTrainedModel, inputs: Inputs, embedded: Tensor) -> Context:
    """The mask, and the relative-position bias (1, heads, length, length) that all layers share."""
    bias = _submodule(model, "encoder").compute_position_bias(embedded[:1])
    return replace(masked(model, inputs, embedded), shared={"position_bias": bias})


def _deberta(model: PreTrainedModel, inputs: Inputs, embedded: Tensor) -> Context:
    """The pairwise mask, relative positions, and the relative embeddings that all layers share."""
    encoder = _submodule(model, "encoder")
    pairs = encoder.get_attention_mask(inputs["attention_mask"])
    return Context(
        rows={"attention_mask": pairs, "input_mask": inputs["attention_mask"]},
        shared={
            "relative_pos": encoder.get_rel_pos(embedded),
            "rel_embeddings": encoder.get_rel_embedding(),
        },
    )


def _deberta_call(
    model: PreTrainedModel, layer: nn.Module, i: int, hidden: Tensor, context: Context
) -> Tensor:
    """A DeBERTa layer; the first one adds the convolution over the embeddings if the model has it."""
    output = layer(hidden, context["attention_mask"], **context.shared)[0]
    conv = dict(model.get_submodule("encoder").named_children()).get("conv")
    return conv(hidden, output, context["input_mask"]) if conv is not None and i == 1 else output


def _roformer(model: PreTrainedModel, inputs: Inputs, embedded: Tensor) -> Context:
    """The mask, and the sinusoids (1, 1, length, head dim) that rotate queries and keys."""
    positions = _submodule(model, "encoder.embed_positions")(embedded.shape[:-1])
    return replace(masked(model, inputs, embedded), shared={"sinusoidal_pos": positions[None, None]})


def _rotary(model: PreTrainedModel, inputs: Inputs, embedded: Tensor) -> Context:
    """The mask, and the rotary cosines and sines (1, length, head dim)."""
    cos, sin = _submodule(model, "rotary_emb")(embedded, _positions(embedded))
    return replace(masked(model, inputs, embedded), shared={"cos": cos, "sin": sin})


def _rotary_call(
    model: PreTrainedModel, layer: nn.Module, i: int, hidden: Tensor, context: Context
) -> Tensor:
    return layer(
        hidden,
        attention_mask=context["attention_mask"],
        position_embeddings=(context["cos"], context["sin"]),
    )


def _modernbert(model: PreTrainedModel, inputs: Inputs, embedded: Tensor) -> Context:
    """A mask and rotary embeddings for each kind of layer: global and sliding-window attention."""
    context = Context()
    for kind in sorted(set(model.config.layer_types)):
        context.rows[kind] = _MASKS[kind](model.config, embedded, inputs["attention_mask"])
        cos, sin = _submodule(model, "rotary_emb")(embedded, _positions(embedded), kind)
        context.shared.update({f"{kind}_cos": cos, f"{kind}_sin": sin})
    return context


def _modernbert_call(
    model: PreTrainedModel, layer: nn.Module, i: int, hidden: Tensor, context: Context
) -> Tensor:
    kind = model.config.layer_types[i - 1]
    rotary = (context[f"{kind}_cos"], context[f"{kind}_sin"])
    return layer(hidden, attention_mask=context[kind], position_embeddings=rotary)


def _positions(embedded: Tensor) -> Tensor:
    """Positions (1, length), counted from the left edge as the library does."""
    return torch.arange(embedded.shape[1], device=embedded.device)[None]


_BERT = BackboneSpec()
_ROBERTA = BackboneSpec(positions_from_ids=True)
_ELECTRA = BackboneSpec(projection="embeddings_project", pooler=None)
_DEBERTA = BackboneSpec(pooler=None, masked_embeddings=True, context=_deberta, call=_deberta_call)
_NOMIC = BackboneSpec(layers="layers", context=_rotary, call=_rotary_call)

SPECS: dict[str, BackboneSpec] = {
    "albert": BackboneSpec(
        layers="encoder.albert_layer_groups",
        projection="encoder.embedding_hidden_mapping_in",
        pooler="pooler",
    ),
    "bert": _BERT,
    "camembert": _ROBERTA,
    "convbert": replace(_ELECTRA, reads_padding=True),
    "data2vec-text": _ROBERTA,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
    "distilbert": BackboneSpec(layers="transformer.layer", pooler=None, token_types=False),
    "electra": _ELECTRA,
    "ernie": _BERT,
    "jina_embeddings_v3": _NOMIC,
    "megatron-bert": BackboneSpec(final_norm="encoder.ln"),
    "modernbert": BackboneSpec(
        layers="layers",
        pooler=None,
        final_norm="final_norm",
        token_types=False,
        context=_modernbert,
        call=_modernbert_call,
    ),
    "mpnet": BackboneSpec(token_types=False, positions_from_ids=True, context=_mpnet),
    "nomic_bert": _NOMIC,
    "rembert": BackboneSpec(projection="encoder.embedding_hidden_mapping_in"),
    "roberta": _ROBERTA,
    "roberta-prelayernorm": BackboneSpec(final_norm="LayerNorm", positions_from_ids=True),
    "roformer": BackboneSpec(projection="embeddings_project", pooler=None, context=_roformer),
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": BackboneSpec(final_norm="encoder.LayerNorm", positions_from_ids=True),
}

_HOW_TO_ADD = (
    "To add it, give the paths of its modules: from offramp.backbones import SPECS, BackboneSpec, check_parity; "
    "SPECS[{name!r}] = BackboneSpec(embeddings='embeddings', layers='encoder.layer', pooler=None); then "
    "check_parity(model) must stay below 1e-5. Layers that need more than an attention mask take a `context` "
    "and a `call` function: see BackboneSpec"
)


def spec_of(config: PreTrainedConfig) -> BackboneSpec:
    """The entry of `SPECS` for the encoder that a config belongs to.

    Raises:
        ModelError: a decoder, an encoder-decoder, or an unknown architecture.
    """
    name = config.model_type
    if config.is_encoder_decoder:
        raise ModelError(f"expected an encoder, got {name!r}, an encoder-decoder: try 'minilm-l6'")
    if getattr(config, "is_decoder", False):
        raise ModelError(
            f"expected an encoder, got {name!r} as a decoder (is_decoder is true, so that a token sees only "
            "the tokens before it): set config.is_decoder to false if the weights are an encoder's"
        )
    if name in SPECS:
        return SPECS[name]
    from transformers.models.auto import modeling_auto

    generators = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if name in generators and name not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ModelError(f"expected an encoder, got {name!r}, a decoder that generates text: try 'minilm-l6'")
    message = unknown_name("encoder architecture", name, SPECS)
    raise ModelError(f"{message}. {_HOW_TO_ADD.format(name=name)}")
