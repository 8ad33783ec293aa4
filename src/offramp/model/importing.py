"""Import checkpoints of released early-exit code as multi-exit classifiers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import PretrainedConfig

from offramp._core.arguments import choice, name_list, sequence
from offramp._core.errors import ConfigError, ModelError
from offramp._core.paths import UserPath, user_path
from offramp._core.text import some_of
from offramp.backbones import SPECS, has_tokenizer, load_tokenizer
from offramp.backbones.weight_files import check_files, read_config, read_weights, refuse_undefined
from offramp.model.checkpoint_files import backbone_config, usable_config
from offramp.model.config import MultiExitConfig, check_length
from offramp.model.multi_exit import MultiExitForSequenceClassification
from offramp.model.tokenizer_check import tokenizer_check

LastExit = Literal["classifier", "highway"]


@dataclass(frozen=True)
class Layout:
    """The names of one code base. `{encoder}` is the encoder's prefix, `{exit}` an exit counted from 0, `{pooler}` the
    path of the encoder's own pooler.

    Attributes:
        encoders: prefix of the encoder's names, to its architecture.
        pooler: the dense layer that reads the first token at an exit; a tanh follows it.
        classifier: the linear layer after it.
        final: pooler and classifier of the model itself, if they are not those of the last exit.
    """

    encoders: dict[str, str]
    pooler: str
    classifier: str
    final: tuple[str, str] | None = None

    def head(self, encoder: str, exit: int) -> tuple[str, str]:
        """Paths of the pooler and the classifier of an exit."""
        return self._path(self.pooler, encoder, exit), self._path(self.classifier, encoder, exit)

    def final_head(self, encoder: str) -> tuple[str, str] | None:
        """Paths of the model's own pooler and classifier, or None."""
        return None if self.final is None else (self._path(self.final[0], encoder), self.final[1])

    def encoder_of(self, keys: Collection[str]) -> str | None:
        """Prefix of the encoder in a state dict, or None for another layout."""
        for encoder in self.encoders:
            if all(f"{path}.weight" in keys for path in self.head(encoder, 0)):
                return encoder
        return None

    def _path(self, template: str, encoder: str, exit: int = 0) -> str:
        return template.format(encoder=encoder, exit=exit, pooler=SPECS[self.encoders[encoder]].pooler)


LAYOUTS: dict[str, Layout] = {
    # Xin et al. 2020 (arXiv 2004.12993). An off-ramp ("highway") after every layer, the last included, and the
    # classifier with which BERT or RoBERTa was fine-tuned.
    "deebert": Layout(
        encoders={"bert": "bert", "roberta": "roberta"},
        pooler="{encoder}.encoder.highway.{exit}.pooler.dense",
        classifier="{encoder}.encoder.highway.{exit}.classifier",
        final=("{encoder}.{pooler}", "classifier"),
    ),
    # Liu et al. 2022 (arXiv 2110.07038), the code for fine-tuning with exits: a pooler and a classifier per layer.
    "elasticbert": Layout(
        encoders={"elasticbert": "bert"},
        pooler="{encoder}.encoder.pooler.{exit}.dense",
        classifier="classifiers.{exit}",
    ),
    # Zhou et al. 2020 (arXiv 2006.04152). One pooler that all exits share, and a classifier per layer.
    "pabee": Layout(
        encoders={"albert": "albert", "bert": "bert"},
        pooler="{encoder}.{pooler}",
        classifier="classifiers.{exit}",
    ),
}

# Old versions of the libraries saved these with the weights; current versions compute them.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
# Dropout before the classifiers, if it is not the encoder's own.
DROPOUT = {"albert": "classifier_dropout_prob"}
PARAMETERS = ("weight", "bias")


def import_checkpoint(
    folder: UserPath,
    layout: str,
    *,
    labels: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    tokenizer: UserPath | None = None,
    last_exit: LastExit = "classifier",
    max_length: int | None = None,
) -> MultiExitForSequenceClassification:
    """A multi-exit classifier with the weights of a checkpoint that other early-exit code wrote.

    It has an exit behind every layer, and its logits are those of the original. In PABEE all exits share a pooler;
    here each exit has a copy of it.

    DeeBERT has two heads behind the last layer: the model's own classifier, and one more off-ramp, which its training
    leaves out. The released code answers with that off-ramp's prediction if it is confident enough, else with
    the classifier's. An exit here has one head, and `last_exit` chooses it.

    Args:
        folder: holds `config.json`, and `model.safetensors` or `pytorch_model.bin`; usually a tokenizer too.
        layout: `deebert` (BERT, RoBERTa), `pabee` (BERT, ALBERT) or `elasticbert`.
        labels: class names in the order of the outputs; by default those in `config.json`. DeeBERT and PABEE order
            MNLI's as contradiction, entailment, neutral; with RoBERTa the last two are swapped.
        order: the same names in the order of your data, if it differs.
        tokenizer: a packaged encoder, folder or hub id with the tokenizer, if `folder` has none.
        last_exit: of DeeBERT, the head of the last exit: `classifier`, or the last off-ramp, `highway`.
        max_length: longest input in tokens; by default 256 or the encoder's limit.

    Returns:
        A float32 model in evaluation mode, for regression if it has one output.

    Raises:
        ConfigError: an unknown layout or last exit.
        ModelError: no checkpoint, another layout, tensors that are missing, foreign or of another shape, names for
            another number of labels, or no tokenizer.
    """
    chosen = LAYOUTS[choice("layout", layout, LAYOUTS)]
    choice("last exit", last_exit, get_args(LastExit))
    if labels is not None:
        labels = sequence("labels", labels, "class names in the order of the outputs")
    if last_exit == "highway" and chosen.final is None:
        raise ConfigError(
            f"last_exit='highway' is for DeeBERT, which has two last heads; {layout!r} has one: leave it out"
        )
    source = user_path(folder, "the checkpoint")
    check_files(source)
    stored, weights = read_config(source), read_weights(source)
    refuse_undefined(weights.items(), source)
    encoder = _encoder_of(source, layout, weights)
    backbone = backbone_config(source, encoder, chosen.encoders[encoder], stored)
    heads = [chosen.head(encoder, exit) for exit in range(backbone.num_hidden_layers)]
    spare = chosen.final_head(encoder)
    if spare is not None and last_exit == "classifier":
        heads[-1], spare = spare, heads[-1]
    unused = {f"{path}.{parameter}" for path in spare or () for parameter in PARAMETERS}
    stored_order = _label_names(source, stored, heads[0][1], weights, labels)
    target = stored_order if order is None else sequence("order", order, "class names in their order")
    if set(target) != set(stored_order) or len(target) != len(stored_order):
        raise ModelError(
            f"expected an order of the labels {stored_order}, got {target}: name each of them once"
        )
    with torch.random.fork_rng(devices=[]), usable_config(source):
        model = MultiExitForSequenceClassification(_config(backbone, target))
    origins = _origins(model, encoder, heads)
    _check_tensors(source, layout, model.state_dict(), weights, origins, unused)
    outputs = [stored_order.index(name) for name in target]
    tensors = {name: weights[origin] for name, origin in origins.items()}
    model.load_state_dict({n: t[outputs] if ".classifier." in n else t for n, t in tensors.items()})
    model.tokenizer = _tokenizer(source, tokenizer, backbone)
    model.config.max_tokens = check_length(max_length, model.backbone, model.tokenizer)
    model.config.tokenizer_check = tokenizer_check(model.tokenizer)
    return model.eval()


def _encoder_of(source: Path, layout: str, weights: Mapping[str, Tensor]) -> str:
    """Prefix of the encoder in the weights; `ModelError` if they are in another layout."""
    encoder = LAYOUTS[layout].encoder_of(weights)
    if encoder is not None:
        return encoder
    expected = " or ".join(
        f"{LAYOUTS[layout].head(encoder, 0)[1]}.weight and {LAYOUTS[layout].head(encoder, 0)[0]}.weight"
        for encoder in LAYOUTS[layout].encoders
    )
    others = [name for name, other in LAYOUTS.items() if other.encoder_of(weights) is not None]
    hint = f"it is in the layout {others[0]!r}" if others else f"it has {some_of(sorted(weights))}"
    raise ModelError(
        f"the checkpoint in {source} is not in the layout {layout!r}: expected {expected}, but {hint}"
    )


def _config(backbone: PretrainedConfig, labels: Sequence[str]) -> MultiExitConfig:
    return MultiExitConfig(
        backbone_config=backbone,
        exits=range(1, backbone.num_hidden_layers + 1),
        pooling="pooler",
        kind="classification" if len(labels) > 1 else "regression",
        classifier_dropout=getattr(backbone, DROPOUT.get(backbone.model_type, "hidden_dropout_prob")),
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
    )


def _label_names(
    source: Path,
    stored: Mapping[str, Any],
    classifier: str,
    weights: Mapping[str, Tensor],
    labels: Sequence[str] | None,
) -> list[str]:
    """Class names in the order of a classifier's outputs; `score` for the one output of a regression."""
    shape = weights[f"{classifier}.weight"].shape if f"{classifier}.weight" in weights else ()
    if len(shape) != 2:
        raise ModelError(
            f"expected a matrix as {classifier}.weight in {source}, got the shape {tuple(shape)}"
        )
    outputs = shape[0]
    stored_names = stored.get("id2label") or {}
    if not isinstance(stored_names, Mapping):
        raise ModelError(
            f"the config.json in {source} has {stored_names!r:.60} as id2label, expected names by output: restore it"
        )
    count = len(stored_names) or stored.get("num_labels") or outputs
    if count != outputs:
        raise ModelError(
            f"the config.json in {source} names {count} labels, but its classifiers have {outputs} outputs: they do "
            "not match"
        )
    if labels is not None and not (len(labels) == len(set(labels)) == outputs):
        raise ModelError(
            f"expected {outputs} different labels, one for each output of the checkpoint in {source}, got "
            f"{list(labels)}"
        )
    if outputs == 1:
        return ["score"]
    if labels is not None:
        return list(name_list("labels", labels, "class names in the order of the outputs"))
    return [stored_names.get(str(i), str(i)) for i in range(outputs)]


def _origins(
    model: MultiExitForSequenceClassification, encoder: str, heads: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """The name in the checkpoint of each of the model's tensors."""
    origins = {f"backbone.{name}": f"{encoder}.{name}" for name in model.backbone.state_dict()}
    for k, (pooler, classifier) in enumerate(heads):
        for parameter in PARAMETERS:
            origins[f"heads.{k}.pooler.dense.{parameter}"] = f"{pooler}.{parameter}"
            origins[f"heads.{k}.classifier.{parameter}"] = f"{classifier}.{parameter}"
    return origins


def _check_tensors(
    source: Path,
    layout: str,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    origins: Mapping[str, str],
    unused: set[str],
) -> None:
    """Refuse a checkpoint that cannot be read completely."""
    left = weights.keys() - set(origins.values()) - unused
    misfits = {
        "lacks": sorted(set(origins.values()) - weights.keys()),
        "holds besides": sorted(name for name in left if not name.endswith(BUFFERS)),
        "has tensors of another shape than its config.json says:": [
            f"{origin} {tuple(weights[origin].shape)} for {tuple(own[name].shape)}"
            for name, origin in origins.items()
            if origin in weights and weights[origin].shape != own[name].shape
        ],
    }
    for problem, names in misfits.items():
        if names:
            raise ModelError(
                f"the checkpoint in {source} is in the layout {layout!r}, but {problem} {some_of(names)}: it is "
                "damaged, or its config.json is of another model"
            )


def _tokenizer(source: Path, tokenizer: UserPath | None, backbone: PretrainedConfig) -> Any:
    """The requested tokenizer, or the one saved with the weights."""
    if tokenizer is None and not has_tokenizer(source):
        raise ModelError(
            f"{source} holds no tokenizer: name the folder or hub id of the fine-tuned encoder's with tokenizer=... "
            "(--tokenizer)"
        )
    return load_tokenizer(source if tokenizer is None else tokenizer, backbone)
