"""Configuration of a multi-exit classifier: the backbone's own config, and the exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from offramp._core.arguments import as_python, choice, flag, name_list, sequence, whole
from offramp._core.errors import ModelError
from offramp._core.numbers import is_number
from offramp._core.trace import Kind
from offramp.backbones import Backbone

POOLINGS = ("pooler", "first", "mean")
DEFAULT_MAX_LENGTH = 256


def check_exits(exits: Sequence[int], depth: int) -> list[int]:
    """The exit layers as a list; `ModelError` if they are out of order or beyond the depth.

    Raises `ConfigError` for anything but whole numbers.
    """
    listed = sequence("exits", exits, "layers, such as [1, 2, 4, 6]")
    layers = [whole("an exit layer", layer, note=f"layers count from 1 to {depth}") for layer in listed]
    if not layers:
        raise ModelError(
            "a model needs at least one exit, got none: give the exit layers, such as exits=[1, 2, 4, 6]"
        )
    if layers != sorted(set(layers)):
        raise ModelError(
            f"exit layers must increase without repeats, got {layers}: try {sorted(set(layers))}"
        )
    if layers[0] < 0 or layers[-1] > depth:
        raise ModelError(
            f"exit layers must lie in 1..{depth} (layers count from 1), or be 0 for the linear stage before the first "
            f"layer, got {layers}"
        )
    if layers == [0]:
        raise ModelError(
            "layer 0 is an exit before the encoder: add at least one layer, such as exits=[0, 6]"
        )
    return layers


def default_exits(depth: int) -> list[int]:
    """The first layer, a third, two thirds and the whole depth: 1, 2, 4, 6 of six; 1, 4, 8, 12 of twelve."""
    return sorted({1, max(1, depth // 3), max(1, 2 * depth // 3), depth})


def check_length(max_length: int | None, encoder: PreTrainedModel, tokenizer: Any) -> int:
    """The requested or default maximum length; `ModelError` beyond the limit of encoder and tokenizer."""
    positions = getattr(encoder.config, "max_position_embeddings", DEFAULT_MAX_LENGTH)
    backbone = Backbone(encoder)
    if backbone.spec.positions_from_ids:  # these count from the id after the padding token's
        positions -= (backbone.word_embeddings.padding_idx or 0) + 1
    limit = min(positions, tokenizer.model_max_length)
    if max_length is None:
        return int(min(DEFAULT_MAX_LENGTH, limit))
    length = whole("max_length", max_length, note="it counts tokens")
    if not 4 <= length <= limit:
        raise ModelError(f"max_length must lie in 4..{limit} for this encoder, got {length}")
    return length


def class_names(labels: Sequence[str] | int, kind: str, gates: bool) -> tuple[str, ...]:
    """Names of a model's outputs, from the names of the classes or their number."""
    if kind == "regression":
        if gates:
            raise ModelError(
                "a gate predicts whether an exit's class is right, and scores have no class: leave gates out"
            )
        return ("score",)
    labels = as_python(labels)
    if is_number(labels, whole=True):
        listed = tuple(map(str, range(int(labels))))
    else:
        listed = name_list("labels", labels, "class names in their order")
    if len(listed) < 2:
        raise ModelError(
            f"classification needs at least 2 classes, got {list(listed)}; for scores use kind='regression'"
        )
    return listed


class MultiExitConfig(PretrainedConfig):
    """Configuration of `MultiExitForSequenceClassification`.

    Args:
        backbone_config: the encoder's own config, as a dict or an object; its depth is the last exit layer.
        exits: backbone layers with an exit after them, counted from 1, increasing; a 0 in front is a linear stage
            before the first layer (see `offramp.layer_zero`).
        pooling: how an exit reads a hidden state: `mean` over the tokens, the `first` token, or a `pooler`
            (dense + tanh on the first token) per exit.
        gates: whether each exit has a learned gate (SWEET paper, "LTE").
        kind: `classification` or `regression` (one output).
        classifier_dropout: dropout before each exit's classifier.
        max_tokens: longest input; longer texts are cut and counted.
        pair: whether the model was trained on pairs of texts; None if unknown.
        tokenizer_check: what `tokenizer_check` gives for the model's tokenizer, "" if unknown.
        strategy: the training strategy that made the weights, "" before training.
        criterion: exit criterion of the policy saved with the weights, "" without a policy.
        costs: coefficients of the FLOPs polynomial (see `offramp.costs`), counted once.
        linear_sizes: numbers of n-grams, special tokens and separators of layer 0, once it is fitted.
    """

    model_type = "offramp"
    is_composition = True

    def __init__(
        self,
        backbone_config: dict[str, Any] | PretrainedConfig | None = None,
        exits: Sequence[int] = (),
        pooling: str = "mean",
        gates: bool = False,
        kind: str = "classification",
        classifier_dropout: float = 0.1,
        max_tokens: int = DEFAULT_MAX_LENGTH,
        pair: bool | None = None,
        tokenizer_check: str = "",
        strategy: str = "",
        criterion: str = "",
        costs: dict[str, Any] | None = None,
        linear_sizes: Sequence[int] = (0, 0, 0),
        **kwargs: Any,
    ) -> None:
        if isinstance(backbone_config, PretrainedConfig):
            backbone_config = backbone_config.to_dict()
        self.backbone_config = backbone_config or {}
        self.exits = sequence("exits", exits, "layers")
        self.pooling = choice("pooling", pooling, POOLINGS)
        self.gates = flag("gates", gates)
        self.kind = choice("kind", kind, get_args(Kind))
        self.classifier_dropout = classifier_dropout
        self.max_tokens = whole("max_tokens", max_tokens, 1)
        self.pair = None if pair is None else flag("pair", pair)
        self.tokenizer_check = tokenizer_check
        self.strategy = strategy
        self.criterion = criterion
        self.costs = costs
        self.linear_sizes = list(linear_sizes)
        super().__init__(**kwargs)
        self.problem_type = "regression" if kind == "regression" else "single_label_classification"
        if self.backbone_config:
            check_exits(self.exits, self.backbone.num_hidden_layers)

    @property
    def backbone(self) -> PretrainedConfig:
        """The encoder's config as an object of its own class."""
        stored = dict(self.backbone_config)
        model_type = stored.pop("model_type", None)
        if model_type is None:
            raise ModelError(
                "the config names no backbone (backbone_config['model_type']): it is not an offramp model"
            )
        config = AutoConfig.for_model(model_type, **stored)
        # "sdpa" is the library's default, but not every encoder has it: the encoder then chooses.
        if self._attn_implementation not in (None, "sdpa"):
            config._attn_implementation = self._attn_implementation
        return config
