"""Read the config and the tokenizer of a checkpoint, and report a damaged one in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import ModelError
from offramp._core.text import some_of

NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


def backbone_config(
    source: Path, encoder: str, model_type: str, stored: Mapping[str, Any]
) -> PretrainedConfig:
    """The config of an encoder of a known type, with the keys of a `config.json` that describe the architecture."""
    named = stored.get("model_type", encoder)  # the first versions of the library wrote no type
    if named not in (encoder, model_type):
        raise ModelError(
            f"the config.json in {source} describes {named!r}, but the weights are of {encoder!r}"
        )
    keys = AutoConfig.for_model(model_type).to_dict().keys() - PretrainedConfig().to_dict().keys()
    kept = {name: stored[name] for name in keys if stored.get(name) is not None}
    if missing := [name for name in NEEDED if name not in kept]:
        raise ModelError(f"the config.json in {source} lacks {', '.join(missing)}: restore the original")
    with usable_config(source):
        return AutoConfig.for_model(model_type, **kept)


@contextmanager
def usable_config(source: Path) -> Iterator[None]:
    """Turn the library's errors about impossible values in config.json into a `ModelError`."""
    try:
        yield
    except Exception as error:  # the library checks fields and sizes with many error types
        raise ModelError(
            f"the config.json in {source} cannot be used ({first_sentence(error)}): restore the original"
        ) from error


@contextmanager
def readable_checkpoint(source: object) -> Iterator[None]:
    """Turn the library's errors about a folder or hub id that holds no model of ours into a `ModelError`."""
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"no offramp model at {source}: {first_sentence(error)}") from error
    except Exception as error:  # a corrupt safetensors file has an error type of the library's own
        raise ModelError(
            f"the checkpoint at {source} cannot be read ({first_sentence(error)}): it is corrupt or not an "
            "offramp model; copy or train it again"
        ) from error


def refuse_other_class(source: Any, model_type: str) -> None:
    """Refuse the folder or hub id of another model class of ours, or of the library's."""
    stored = PretrainedConfig.get_config_dict(source)[0].get("model_type", model_type)
    if stored != model_type:
        raise ModelError(
            f"{source} holds a model of the type {stored!r}, not {model_type!r}: load it with offramp.load_model"
        )


def read_tokenizer(source: Any) -> Any:
    """The tokenizer saved with a model; all errors that a damaged file causes become one clear error."""
    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise ModelError(
            f"the tokenizer at {source} cannot be read ({type(error).__name__}: {first_sentence(error)}): "
            "its files are damaged or incomplete; copy or train the model again"
        ) from error


def refuse_partial(source: object, info: Mapping[str, Any]) -> None:
    """Refuse tensors that the library would leave random or drop with a warning."""
    for key, problem in {
        "missing_keys": "misses",
        "unexpected_keys": "holds foreign",
        "mismatched_keys": "has tensors of another shape:",
    }.items():
        names = sorted(str(n) for n in info.get(key, ()))
        if names:
            raise ModelError(
                f"the checkpoint at {source} {problem} {some_of(names)}: it was not saved by this model"
            )
