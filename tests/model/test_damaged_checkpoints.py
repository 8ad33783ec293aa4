"""Checkpoints that are not: each reader says in one line what a file is, and what to do."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from offramp._core.errors import ModelError
from offramp.backbones import load_backbone
from offramp.inference.loading import load_model
from offramp.model import MultiExitForSequenceClassification, import_checkpoint
from tests.model.released import Released, make_config, make_state, write

TENSORS, PICKLE, INDEX = "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"
READERS: dict[str, Callable[[Path], Any]] = {
    "encoder": load_backbone,
    "model": load_model,
    "released": lambda folder: import_checkpoint(folder, "deebert"),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: Any, tiny_encoder: Path, tiny_tokenizer: Any) -> dict[str, Path]:
    """A folder for each reader."""
    root = tmp_path_factory.mktemp("checkpoints")
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2], max_length=16)
    model.save_pretrained(root / "model")
    released = Released("deebert", "bert")
    config = make_config(released, len(tiny_tokenizer))
    write(root / "released", config, make_state(released, config), pickled=False)
    tiny_tokenizer.save_pretrained(root / "released")
    return {"encoder": tiny_encoder, "model": root / "model", "released": root / "released"}


@pytest.fixture(params=READERS)
def case(request: Any, checkpoints: dict[str, Path], tmp_path: Path) -> tuple[Callable[[Path], Any], Path]:
    """A reader, and a copy of its checkpoint to damage."""
    folder = tmp_path / "copy"
    shutil.copytree(checkpoints[request.param], folder)
    return READERS[request.param], folder


def pickle_instead(folder: Path, content: Any = None) -> None:
    weights = load_file(folder / TENSORS)
    (folder / TENSORS).unlink()
    torch.save(weights if content is None else content(weights), folder / PICKLE)


def shard(folder: Path) -> None:
    weights = load_file(folder / TENSORS)
    (folder / TENSORS).unlink()
    names = sorted(weights)
    halves = {SHARDS[0]: names[::2], SHARDS[1]: names[1::2]}
    for file, members in halves.items():
        save_file({name: weights[name] for name in members}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {name: file for file, members in halves.items() for name in members},
    }
    (folder / INDEX).write_text(json.dumps(index))


def rewrite(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    weights = {name: change(tensor) for name, tensor in load_file(folder / TENSORS).items()}
    save_file(weights, folder / TENSORS, metadata={"format": "pt"})


def replace_with(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).write_bytes(content)][0] and None


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def instead(name: str) -> Callable[[Path], None]:
    """Weights under a name of another framework."""
    return lambda folder: (folder / TENSORS).rename(folder / name) and None


def broken_link(folder: Path) -> None:
    (folder / TENSORS).unlink()
    (folder / TENSORS).symlink_to(folder / "cache" / "blob")


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "x", "w") as archive:
        archive.write(folder / TENSORS, TENSORS)
    os.replace(folder / "x", folder / TENSORS)


class Runs:
    """Would run code where a pickle is opened without care."""

    def __reduce__(self) -> Any:
        return print, ("code was run",)


AGAIN = "copy or download it again"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pointer": (replace_with(TENSORS, POINTER), rf"{TENSORS} is a Git LFS pointer, .*git lfs pull"),
    "web page": (replace_with(TENSORS, PAGE), rf"{TENSORS} is a web page, not the file itself.*: {AGAIN}"),
    "empty": (replace_with(TENSORS, b""), rf"{TENSORS} is empty: {AGAIN}"),
    "cut": (cut(TENSORS, 0.9), rf"{TENSORS} is cut off: [\d,]+ of at least [\d,]+ bytes are there: {AGAIN}"),
    "cut header": (cut(TENSORS, 0.01), rf"{TENSORS} is cut off"),
    "noise": (
        replace_with(TENSORS, b"\x07" * 99),
        rf"{TENSORS} is no safetensors file, or its header is cut",
    ),
    "zip": (zipped, rf"{TENSORS} is a zip archive \(unpack it\)"),
    "hdf5": (replace_with(TENSORS, b"\x89HDF\r\n"), rf"{TENSORS} is an HDF5 file under another name"),
    "link": (broken_link, rf"{TENSORS} links to a file that is not there"),
    "gone": (
        lambda f: (f / TENSORS).unlink(),
        r"holds no weights: it holds (README\.md, )?config\.json, .*save_pretrained",
    ),
    "tensorflow": (
        instead("tf_model.h5"),
        "holds no weights: it holds weights for TensorFlow: .*from_tf=True",
    ),
    "flax": (instead("flax_model.msgpack"), "holds no weights: it holds weights for Flax: .*from_flax=True"),
    "gguf": (instead("model-q4.gguf"), "holds no weights: it holds weights in GGUF"),
    "onnx": (instead("model.onnx"), "holds no weights: it holds ONNX graphs"),
    "lora": (instead("adapter_model.safetensors"), r"it holds an adapter \(LoRA\).*merge_and_unload"),
    "shard gone": (
        lambda f: (shard(f), (f / SHARDS[1]).unlink()),
        f"lacks {SHARDS[1]}, of 2 files of weights",
    ),
    "shard cut": (lambda f: (shard(f), cut(SHARDS[0], 0.9)(f)), rf"{SHARDS[0]} is cut off"),
    "index": (lambda f: (shard(f), (f / INDEX).write_text("[]")), rf"{INDEX} cannot be read"),
    "code": (
        lambda f: pickle_instead(f, lambda w: {"a": Runs()}),
        "holds more than tensors, and is not opened",
    ),
    "nested": (
        lambda f: pickle_instead(f, lambda w: {"model": w}),
        "expected a state dict .* a dict with model: save",
    ),
    "list": (
        lambda f: pickle_instead(f, lambda w: [*w.values()]),
        "tensors by name, got a list: save model.state",
    ),
    "pickle cut": (lambda f: (pickle_instead(f), cut(PICKLE, 0.9)(f)), f"{PICKLE} is cut off"),
    "pickle empty": (
        lambda f: (pickle_instead(f), replace_with(PICKLE, b"")(f)),
        f"{PICKLE} is empty: {AGAIN}",
    ),
    "int8": (
        lambda f: rewrite(f, lambda t: t.to(torch.int8)),
        "holds I8 numbers as .*quantised weights cannot",
    ),
    "undefined": (
        lambda f: rewrite(f, lambda t: t * float("nan")),
        "not finite numbers in .*smaller learning rate",
    ),
    "config pointer": (replace_with("config.json", POINTER), r"config\.json is a Git LFS pointer"),
    "config cut": (cut("config.json", 0.5), r"config\.json is cut off: its end is missing"),
    "config empty": (replace_with("config.json", b""), r"config\.json is empty"),
    "config list": (replace_with("config.json", b"[]"), r"expected an object in .*config\.json, got list"),
    "config utf-16": (
        replace_with("config.json", "{}".encode("utf-16")),
        r"config\.json cannot be read \(UnicodeDecodeError: 'utf-8'",
    ),
    "tokenizer page": (replace_with("tokenizer.json", PAGE), r"tokenizer\.json is a web page"),
    "only lora": (
        lambda f: (instead("adapter_model.bin")(f), (f / "config.json").unlink()),
        r"holds no config\.json: it holds an adapter",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_one_line_says_what_a_file_is(name: str, case: Any, capfd: pytest.CaptureFixture[str]) -> None:
    read, folder = case
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(ModelError, match=message) as refused:
        read(folder)
    text = str(refused.value)
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text.replace(str(folder), "")) < 300
    assert "code was run" not in capfd.readouterr().out


def old_names(folder: Path) -> None:
    weights = load_file(folder / TENSORS)
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
    assert any(name.endswith("gamma") for name in weights)
    save_file(weights, folder / TENSORS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [old_names, shard, pickle_instead, lambda f: rewrite(f, lambda t: t.double())],
    ids=["gamma and beta", "shards", "pickle", "float64"],
)
def test_other_forms_of_the_same_weights_are_read(change: Callable[[Path], None], case: Any) -> None:
    read, folder = case
    loaded = read(folder)
    expected = (loaded[0] if isinstance(loaded, tuple) else loaded).state_dict()
    change(folder)
    again = read(folder)
    for name, tensor in (again[0] if isinstance(again, tuple) else again).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"PK\x03\x04")
    for read in (load_model, READERS["released"]):
        with pytest.raises(ModelError, match=r"expected the folder of a checkpoint, but .*is a zip archive"):
            read(path)
