"""The files of a checkpoint: which hold its weights, and whether they are what their names say."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from offramp._core.damaged_files import file_problem, safetensors_header
from offramp._core.errors import ModelError
from offramp._core.text import some_of

TENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEXES = (f"{TENSORS}.index.json", f"{PICKLE}.index.json")
# What a folder may hold in place of weights for torch, by the pattern of a file's name.
FOREIGN = {
    "adapter_model.*": "an adapter (LoRA) without its encoder: merge it with peft's merge_and_unload, and save that",
    "tf_model.h5": "weights for TensorFlow: read them in transformers 4 with from_tf=True, and save them there",
    "flax_model.msgpack": "weights for Flax: read them in transformers 4 with from_flax=True, and save them there",
    "*.gguf": "weights in GGUF, which are for llama.cpp: fetch the model's safetensors",
    "*.onnx": "ONNX graphs, which cannot be trained: fetch the model's safetensors",
    "*.zip": "an archive: unpack it",
}
# The names of the norms' parameters in checkpoints made before 2019, or converted from TensorFlow.
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
FLOATS = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "float64",
    "float32",
    "float16",
    "bfloat16",
)  # also as torch names them
AGAIN = "copy or download it again"


def check_files(folder: Path) -> None:
    """Check the files of a checkpoint before a library reads them. A folder that does not exist may be a hub id.

    Raises:
        ModelError: no config.json, no weights for torch, a missing shard, a file that is damaged or of another kind,
            or quantised weights.
    """
    if not folder.exists():
        return
    read_config(folder)
    for path in sorted(folder.glob("*.json")):
        if problem := file_problem(path):
            raise ModelError(f"{path} {problem}: {AGAIN}")
    for path in weight_files(folder):
        _check_weights_file(path)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json`; `ModelError` if it is missing or no JSON object."""
    if not folder.is_dir():
        problem = file_problem(folder) or "is a file"
        raise ModelError(f"expected the folder of a checkpoint, but {folder} {problem}: give the folder")
    path = folder / "config.json"
    try:
        if not path.is_file() and not path.is_symlink():
            raise ModelError(f"{folder} holds no config.json: {_content(folder)}")
        stored = json.loads(path.read_text("utf-8"))
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} {file_problem(path, error)}: {AGAIN}") from error
    if not isinstance(stored, dict):
        raise ModelError(f"expected an object in {path}, got {type(stored).__name__}: {AGAIN}")
    return stored


def weight_files(folder: Path) -> list[Path]:
    """The files of a checkpoint's weights for torch, in the library's order of preference.

    Raises:
        ModelError: no such file, or a shard that is missing.
    """
    for name, index in zip((TENSORS, PICKLE), INDEXES, strict=True):
        path = folder / name
        if path.exists() or path.is_symlink():
            return [path]
        if (folder / index).is_file():
            return _shards(folder, folder / index)
    raise ModelError(f"{folder} holds no weights: {_content(folder)}")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint that `check_files` passed, under their present names."""
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        weights |= load_file(path) if path.suffix == ".safetensors" else read_pickle(path)
    return {_present_name(name): tensor for name, tensor in weights.items()}


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`.

    Raises:
        ModelError: a damaged file, or one with other objects than tensors by name.
    """
    if problem := file_problem(path):
        raise ModelError(f"{path} {problem}: {AGAIN}")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, and is not opened, since such a file can run code: save "
            "model.state_dict() in its place, or use the checkpoint's safetensors"
        ) from error
    except Exception as error:  # EOFError, RuntimeError and others of torch's readers
        raise ModelError(f"{path} {file_problem(path, error)}: {AGAIN}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        entries = f" with {some_of([*map(str, weights)])}" if isinstance(weights, dict) else ""
        raise ModelError(
            f"expected a state dict in {path}, tensors by name, got a {type(weights).__name__}{entries}: save "
            "model.state_dict() there"
        )
    return dict(weights)


def refuse_undefined(weights: Iterable[tuple[str, Tensor]], source: object) -> None:
    """Raise `ModelError` for weights that are not finite: a model with them answers at random, without an error."""
    if names := [
        name for name, tensor in weights if tensor.is_floating_point() and not tensor.isfinite().all()
    ]:
        raise ModelError(
            f"the weights in {source} are not finite numbers in {some_of(names, 1)}: the training that wrote them "
            "diverged, or the file is damaged; train again with a smaller learning rate, or copy it again"
        )


def _check_weights_file(path: Path) -> None:
    """Refuse a file that is damaged, holds code, or holds quantised weights, which would be read as plain numbers."""
    if problem := file_problem(path):
        raise ModelError(f"{path} {problem}: {AGAIN}")
    if path.suffix == ".safetensors":
        types = {name: str(entry["dtype"]) for name, entry in safetensors_header(path).items()}
    else:
        types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in read_pickle(path).items()}
    quantised = [name for name in types if name.endswith("weight") and types[name] not in FLOATS]
    if quantised:
        raise ModelError(
            f"{path} holds {types[quantised[0]]} numbers as {some_of(quantised)}: quantised weights cannot be "
            "trained; use the checkpoint in float32, float16 or bfloat16"
        )


def _shards(folder: Path, index: Path) -> list[Path]:
    """The files that the index of a sharded checkpoint names; `ModelError` if one is missing."""
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} {file_problem(index, error)}: {AGAIN}") from error
    if missing := [str(name) for name in names if not (folder / str(name)).exists()]:
        raise ModelError(
            f"{folder} lacks {some_of(missing)}, of {len(names)} files of weights: copy or download the rest"
        )
    return [folder / str(name) for name in names]


def _content(folder: Path) -> str:
    """What a folder holds in place of a checkpoint, and what to do."""
    for pattern, meaning in FOREIGN.items():
        if any(folder.glob(pattern)):
            return f"it holds {meaning}"
    names = sorted(path.name for path in folder.iterdir())
    return (
        f"it holds {some_of(names, 8) or 'nothing'}; give a folder that save_pretrained wrote, with config.json and "
        f"{TENSORS} or {PICKLE}"
    )


def _present_name(name: str) -> str:
    for old, new in OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
