"""Checkpoints of released early-exit code, as multi-exit classifiers of this package."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from offramp._core.errors import ConfigError, ModelError, unknown_name
from offramp.backbones import has_tokenizer, load_tokenizer
from offramp.model.config import MultiExitConfig
from offramp.model.layouts import LAYOUTS, LastExit, Layout
from offramp.model.multi_exit import MultiExitForSequenceClassification, check_length

# What the libraries of that time saved beside the weights, and today's make anew.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
# Dropout before the classifiers, where it is not the encoder's own.
DROPOUT = {"albert": "classifier_dropout_prob"}
PARTS = ("weight", "bias")


def import_checkpoint(
    folder: str | Path,
    layout: str,
    *,
    labels: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
    tokenizer: str | Path | None = None,
    last_exit: LastExit = "classifier",
    max_length: int | None = None,
) -> MultiExitForSequenceClassification:
    """A multi-exit classifier with the weights of a checkpoint that other early-exit code wrote.

    It has an exit behind every layer, and its logits are those of the original. In PABEE all exits share a pooler,
    here each exit has a copy of it.

    In DeeBERT two heads stand behind the last layer: the model's own classifier, and one more off-ramp, which its
    training leaves out. The released code answers with that off-ramp's prediction where it is sure enough, and with
    the classifier's elsewhere. An exit here has one head, and `last_exit` says which.

    Args:
        folder: `config.json`, and `model.safetensors` or `pytorch_model.bin`; mostly a tokenizer too.
        layout: `deebert` (BERT, RoBERTa), `pabee` (BERT, ALBERT) or `elasticbert`.
        labels: class names in the order of the outputs; by default those in `config.json`. DeeBERT and PABEE code has
            MNLI's as contradiction, entailment, neutral; with RoBERTa the last two change places.
        order: the same names in the order wanted, such as that of your data; by default as they are.
        tokenizer: a packaged encoder, folder or hub id to take the tokenizer from, where `folder` has none.
        last_exit: of DeeBERT, the head of the last exit: `classifier`, or the last off-ramp, `highway`.
        max_length: longest input in tokens; by default 256 or what the encoder takes.

    Returns:
        A model in evaluation mode, float32, to be saved, traced, tuned, attacked and exported like any other. With
        one output it is a regression.

    Raises:
        ConfigError: an unknown layout or last exit.
        ModelError: no checkpoint, one in another layout, tensors that are missing, foreign or of another shape,
            names for another number of labels, or no tokenizer.
    """
    if layout not in LAYOUTS:
        raise ConfigError(unknown_name("layout", layout, LAYOUTS))
    _check_last_exit(layout, last_exit)
    source = Path(folder).expanduser()
    stored, weights = _read_config(source), _read_weights(source)
    encoder = _encoder_of(source, layout, weights)
    backbone = _backbone_config(source, LAYOUTS[layout], encoder, stored)
    depth = backbone.num_hidden_layers
    heads, unused = _heads(LAYOUTS[layout], encoder, depth, last_exit)
    names = _label_names(source, stored, _outputs(source, heads[0][1], weights), labels)
    names, rows = _ordered(names, order)
    config = MultiExitConfig(
        backbone_config=backbone,
        exits=range(1, depth + 1),
        pooling="pooler",
        kind="classification" if len(names) > 1 else "regression",
        classifier_dropout=getattr(backbone, DROPOUT.get(backbone.model_type, "hidden_dropout_prob")),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    with torch.random.fork_rng(devices=[]), _usable(source):
        model = MultiExitForSequenceClassification(config)
    origins = _origins(model, encoder, heads)
    _check(model, source, layout, weights, origins, unused)
    tensors = {name: weights[origin] for name, origin in origins.items()}
    model.load_state_dict({n: t[rows] if ".classifier." in n else t for n, t in tensors.items()})
    model.tokenizer = _tokenizer(source, tokenizer, backbone)
    model.config.max_tokens = check_length(max_length, model.backbone, model.tokenizer)
    return model.eval()


def _check_last_exit(layout: str, last_exit: str) -> None:
    """Refuse a head that there is none of."""
    if last_exit not in get_args(LastExit):
        raise ConfigError(unknown_name("last exit", last_exit, get_args(LastExit)))
    if last_exit == "highway" and LAYOUTS[layout].final is None:
        raise ConfigError(
            f"last_exit='highway' tells DeeBERT's two last heads apart, and {layout!r} has one: leave it out"
        )


def _read_config(source: Path) -> dict[str, Any]:
    """What `config.json` says."""
    path = source / "config.json"
    if not path.is_file():
        raise ModelError(f"{source} holds no config.json: give the folder that the checkpoint was saved to")
    try:
        stored = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is no JSON ({error}): copy the checkpoint again") from error
    if not isinstance(stored, dict):
        raise ModelError(
            f"expected an object in {path}, got {type(stored).__name__}: copy the checkpoint again"
        )
    return stored


def _read_weights(source: Path) -> dict[str, Tensor]:
    """The state dict; a pickle is read as weights alone, never as code."""
    tensors, pickled = source / "model.safetensors", source / "pytorch_model.bin"
    if not tensors.is_file() and not pickled.is_file():
        raise ModelError(
            f"{source} holds neither model.safetensors nor pytorch_model.bin: copy one of them there"
        )
    path = tensors if tensors.is_file() else pickled
    try:
        found = (
            load_file(path) if path is tensors else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as weights ({' '.join(str(error).split())[:120]}): copy it again; a pickle that "
            "holds more than tensors is not opened"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"expected a state dict in {path}, tensors by name: save model.state_dict() there")
    return dict(found)


def _encoder_of(source: Path, layout: str, weights: Mapping[str, Tensor]) -> str:
    """Prefix of the encoder in the weights; `ModelError` where they are in another layout."""
    found = LAYOUTS[layout].encoder_of(weights)
    if found is not None:
        return found
    wanted = " or ".join(
        f"{LAYOUTS[layout].head(encoder, 0)[1]}.weight and {LAYOUTS[layout].head(encoder, 0)[0]}.weight"
        for encoder in LAYOUTS[layout].encoders
    )
    others = [name for name, other in LAYOUTS.items() if other.encoder_of(weights) is not None]
    hint = f"it is in the layout {others[0]!r}" if others else f"it has {_some(sorted(weights))}"
    raise ModelError(
        f"the checkpoint in {source} is not in the layout {layout!r}: expected {wanted}, but {hint}"
    )


def _backbone_config(
    source: Path, layout: Layout, encoder: str, stored: Mapping[str, Any]
) -> PretrainedConfig:
    """The encoder's config in the library's own class: what describes the architecture, and nothing else."""
    model_type = layout.encoders[encoder]
    named = stored.get("model_type", encoder)  # the first versions of the library wrote none
    if named not in (encoder, model_type):
        raise ModelError(
            f"the config.json in {source} describes {named!r}, but the weights are of {encoder!r}"
        )
    general = PretrainedConfig().to_dict()
    known = AutoConfig.for_model(model_type).to_dict().keys() - general.keys()
    kept = {name: stored[name] for name in known if stored.get(name) is not None}
    needed = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    if missing := [name for name in needed if name not in kept]:
        raise ModelError(
            f"the config.json in {source} does not say {', '.join(missing)}: restore the original"
        )
    with _usable(source):
        return AutoConfig.for_model(model_type, **kept)


@contextmanager
def _usable(source: Path) -> Iterator[None]:
    """Whatever the library says of a config.json whose values cannot be, as a `ModelError`."""
    try:
        yield
    except Exception as error:  # it checks fields and sizes with many error types, some of its own
        raise ModelError(
            f"the config.json in {source} cannot be used ({' '.join(str(error).split())[:160]}): restore the original"
        ) from error


def _heads(
    layout: Layout, encoder: str, depth: int, last_exit: LastExit
) -> tuple[list[tuple[str, str]], set[str]]:
    """Paths of each exit's pooler and classifier, and the names in the checkpoint that are left out."""
    heads = [layout.head(encoder, exit) for exit in range(depth)]
    spare = layout.final_head(encoder)
    if spare is not None and last_exit == "classifier":
        heads[-1], spare = spare, heads[-1]
    return heads, {f"{path}.{part}" for path in spare or () for part in PARTS}


def _outputs(source: Path, classifier: str, weights: Mapping[str, Tensor]) -> int:
    """Number of outputs of a classifier."""
    shape = weights[f"{classifier}.weight"].shape if f"{classifier}.weight" in weights else ()
    if len(shape) != 2:
        raise ModelError(
            f"expected a matrix as {classifier}.weight in {source}, got the shape {tuple(shape)}"
        )
    return int(shape[0])


def _label_names(
    source: Path, stored: Mapping[str, Any], outputs: int, labels: Sequence[str] | None
) -> list[str]:
    """Class names in the order of the outputs; `score` for the one output of a regression."""
    known = stored.get("id2label") or {}
    if not isinstance(known, Mapping):
        raise ModelError(
            f"the config.json in {source} has {known!r:.60} as id2label, expected names by output: restore it"
        )
    said = len(known) or stored.get("num_labels") or outputs
    if said != outputs:
        raise ModelError(
            f"the config.json in {source} names {said} labels, but its classifiers have {outputs} outputs: they do "
            "not belong together"
        )
    if labels is not None and (len(labels) != outputs or len(set(labels)) != outputs):
        raise ModelError(
            f"expected {outputs} different labels, one an output of the checkpoint in {source}, got {list(labels)}"
        )
    if outputs == 1:
        return ["score"]
    return list(labels or (known.get(str(i), str(i)) for i in range(outputs)))


def _ordered(names: list[str], order: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """The names in the order wanted, and the output that each one has in the checkpoint."""
    wanted = names if order is None else list(order)
    if sorted(wanted) != sorted(names):
        raise ModelError(f"expected an order of the labels {names}, got {wanted}: name each of them once")
    return wanted, [names.index(name) for name in wanted]


def _origins(
    model: MultiExitForSequenceClassification, encoder: str, heads: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """For each of the model's tensors the name that it has in the checkpoint."""
    origins = {f"backbone.{name}": f"{encoder}.{name}" for name in model.backbone.state_dict()}
    for k, (pooler, classifier) in enumerate(heads):
        for part in PARTS:
            origins[f"heads.{k}.pooler.dense.{part}"] = f"{pooler}.{part}"
            origins[f"heads.{k}.classifier.{part}"] = f"{classifier}.{part}"
    return origins


def _check(
    model: MultiExitForSequenceClassification,
    source: Path,
    layout: str,
    weights: Mapping[str, Tensor],
    origins: Mapping[str, str],
    unused: set[str],
) -> None:
    """`ModelError` with names where tensors are missing, left over, or of another shape."""
    for problem, names in _misfits(model.state_dict(), weights, origins, unused):
        if names:
            raise ModelError(
                f"the checkpoint in {source} is in the layout {layout!r}, but {problem} {_some(names)}: it is "
                "damaged, or its config.json is of another model"
            )


def _misfits(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], origins: Mapping[str, str], unused: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """What keeps a checkpoint from being read whole: kinds of problems, and the tensors that have them."""
    yield "lacks", sorted(set(origins.values()) - weights.keys())
    left = weights.keys() - set(origins.values()) - unused
    yield "holds besides", sorted(name for name in left if not name.endswith(BUFFERS))
    yield (
        "has tensors of another shape than its config.json says:",
        [
            f"{origin} {tuple(weights[origin].shape)} for {tuple(own[name].shape)}"
            for name, origin in origins.items()
            if weights[origin].shape != own[name].shape
        ],
    )


def _tokenizer(source: Path, tokenizer: str | Path | None, backbone: PretrainedConfig) -> Any:
    """The tokenizer asked for, or the one beside the weights."""
    if tokenizer is not None:
        return load_tokenizer(tokenizer, backbone)
    if not has_tokenizer(source):
        raise ModelError(
            f"{source} holds no tokenizer: say where that of the fine-tuned encoder lies, a folder or hub id, with "
            "tokenizer=... (--tokenizer)"
        )
    return load_tokenizer(source, backbone)


def _some(names: Sequence[str], most: int = 3) -> str:
    """Some names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
