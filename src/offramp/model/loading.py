"""Load a model that offramp saved, of either class."""

from __future__ import annotations

from os import PathLike

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import ConfigError, ModelError
from offramp._core.library import hub
from offramp._core.paths import UserPath, user_path
from offramp.backbones.weight_files import read_config
from offramp.model.base import SegmentedModel
from offramp.model.cascade import MultiModelConfig, MultiModelForSequenceClassification
from offramp.model.config import MultiExitConfig
from offramp.model.multi_exit import MultiExitForSequenceClassification

CLASSES: dict[str, type[SegmentedModel]] = {
    MultiExitConfig.model_type: MultiExitForSequenceClassification,
    MultiModelConfig.model_type: MultiModelForSequenceClassification,
}

for _config in (MultiExitConfig, MultiModelConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto in (AutoModel, AutoModelForSequenceClassification):  # there is no encoder without exits to load
        _auto.register(_config, CLASSES[_config.model_type], exist_ok=True)


def read_model(source: UserPath, *, device: str = "cpu") -> SegmentedModel:
    """The multi-exit model or cascade in a folder or at a hub id, in evaluation mode, with its tokenizer.

    It has no policy; `offramp.load_model` adds it.

    Args:
        source: the folder that training or an import wrote, or a hub id.
        device: a device name of torch, or `auto` for the accelerator if torch has one here.

    Raises:
        ModelError: no model, another kind of model, or missing, foreign or corrupt tensors.
        ConfigError: no such device here.
    """
    target = named_device(device)
    if not isinstance(source, str | PathLike) or not str(source).strip():
        raise ConfigError(
            f"expected the folder of a model or a hub id, got {source!r}: give the path of a folder"
        )
    folder = user_path(source, "the model")
    # `org/name` is a hub id, unless there is a folder `org`.
    looks_local = folder.is_absolute() or str(source).startswith(".") or folder.parent.is_dir()
    if not folder.exists() and (looks_local or len(folder.parts) != 2):
        raise ModelError(
            f"no model at {source}: no such folder; give the one that 'offramp train' or 'offramp export' "
            "wrote, or a hub id (owner/name)"
        )
    if (folder / "model" / "config.json").exists() and not (folder / "config.json").exists():
        folder = folder / "model"
    if folder.exists():
        read_config(folder)
    try:
        with hub():
            config = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no model at {source}: {first_sentence(error)}") from error
    if config.model_type not in CLASSES:
        raise ModelError(
            f"{source} holds a {config.model_type!r} model, not a multi-exit one: train it first with 'offramp train'"
        )
    with hub():
        model = CLASSES[config.model_type].from_pretrained(str(folder)).eval()
    model.to(target)
    return model


def require_model(model: object) -> SegmentedModel:
    """The model itself; `ConfigError` for anything else, such as the name of a folder."""
    if isinstance(model, SegmentedModel):
        return model
    remedy = (
        "load it with offramp.load_model"
        if isinstance(model, str | PathLike)
        else "make one with from_backbone"
    )
    raise ConfigError(f"expected a model of offramp, got {type(model).__name__}: {remedy}")


def named_device(name: str) -> torch.device:
    """A device by torch's name, or `auto`; see `read_model`."""
    if not isinstance(name, str):
        raise ConfigError(f"device must be a name, such as 'cpu', 'cuda' or 'auto', got {name!r}")
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend has its own type
        raise ConfigError(f"no device {name!r} here: {str(error).splitlines()[0]}") from error
