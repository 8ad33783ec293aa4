"""Small random checkpoints in the layouts of released early-exit code, and what that code computes with them.

Everything here is written from the layouts' definitions with plain tensor operations: no class of the library, and
nothing of the package under test.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

WIDTH, HEADS, INNER, POSITIONS, EMBEDDING = 16, 2, 24, 40, 8
State = dict[str, Tensor]


@dataclass(frozen=True)
class Released:
    """A checkpoint to make.

    Attributes:
        layout: name of the layout.
        encoder: prefix of the encoder's names, which is also what config.json calls it.
        classes: outputs of every classifier.
        depth: layers.
        groups: of ALBERT, how many sets of weights its layers share; each set runs twice where `inner` is 2.
        config: what config.json says beside the architecture.
    """

    layout: str
    encoder: str
    classes: int = 2
    depth: int = 4
    groups: int = 1
    inner: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)


def make_config(released: Released, vocabulary: int) -> dict[str, Any]:
    """config.json with the keys that libraries of that time wrote."""
    config = {
        "architectures": ["Whatever"],
        "attention_probs_dropout_prob": 0.1,
        "finetuning_task": "sst-2",
        "gradient_checkpointing": False,
        "hidden_act": "gelu_new" if released.encoder == "albert" else "gelu",
        "hidden_dropout_prob": 0.2,
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-5 if released.encoder == "roberta" else 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": released.encoder,
        "num_attention_heads": HEADS,
        "num_hidden_layers": released.depth,
        "output_attentions": True,  # left over from an analysis: it must change nothing
        "output_past": True,
        "pad_token_id": 1 if released.encoder == "roberta" else 0,
        "pruned_heads": {},
        "torchscript": False,
        "type_vocab_size": 1 if released.encoder == "roberta" else 2,
        "vocab_size": vocabulary,
    }
    if released.encoder == "albert":
        config |= {
            "classifier_dropout_prob": 0.3,
            "embedding_size": EMBEDDING,
            "inner_group_num": released.inner,
            "num_hidden_groups": released.groups,
        }
    if released.encoder == "elasticbert":
        config |= {"max_output_layers": released.depth, "num_output_layers": released.depth}
    return {**config, **released.config}


def make_state(released: Released, config: Mapping[str, Any]) -> State:
    """Random weights under the layout's names."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / math.sqrt(inputs)
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) / 5

    def norm(name: str, width: int = WIDTH) -> None:
        state[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) / 5
        state[f"{name}.bias"] = torch.randn(width, generator=generator) / 5

    prefix = released.encoder
    embedding = EMBEDDING if prefix == "albert" else WIDTH
    for table in ("word", "position", "token_type"):
        rows = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
        size = (config[rows[table]], embedding)
        state[f"{prefix}.embeddings.{table}_embeddings.weight"] = torch.randn(*size, generator=generator)
    norm(f"{prefix}.embeddings.LayerNorm", embedding)
    state[f"{prefix}.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    if prefix == "albert":
        linear(f"{prefix}.encoder.embedding_hidden_mapping_in", WIDTH, EMBEDDING)
        for group in range(released.groups):
            for inner in range(released.inner):
                layer = f"{prefix}.encoder.albert_layer_groups.{group}.albert_layers.{inner}"
                for part in ("query", "key", "value", "dense"):
                    linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
                norm(f"{layer}.attention.LayerNorm")
                linear(f"{layer}.ffn", INNER, WIDTH)
                linear(f"{layer}.ffn_output", WIDTH, INNER)
                norm(f"{layer}.full_layer_layer_norm")
    else:
        for i in range(released.depth):
            layer = f"{prefix}.encoder.layer.{i}"
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
            norm(f"{layer}.attention.output.LayerNorm")
            linear(f"{layer}.intermediate.dense", INNER, WIDTH)
            linear(f"{layer}.output.dense", WIDTH, INNER)
            norm(f"{layer}.output.LayerNorm")
    for i in range(released.depth):
        if released.layout == "deebert":
            linear(f"{prefix}.encoder.highway.{i}.pooler.dense", WIDTH, WIDTH)
            linear(f"{prefix}.encoder.highway.{i}.classifier", released.classes, WIDTH)
        else:
            linear(f"classifiers.{i}", released.classes, WIDTH)
        if released.layout == "elasticbert":
            linear(f"{prefix}.encoder.pooler.{i}.dense", WIDTH, WIDTH)
    if released.layout == "deebert":
        linear("classifier", released.classes, WIDTH)
    if released.layout != "elasticbert":
        linear(f"{prefix}.pooler" if prefix == "albert" else f"{prefix}.pooler.dense", WIDTH, WIDTH)
    return state


def write(folder: Path, config: Mapping[str, Any], state: State, *, pickled: bool) -> Path:
    """The checkpoint's folder, with the weights in the old format or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    return folder


def forward(
    released: Released, config: Mapping[str, Any], state: State, inputs: Mapping[str, Tensor]
) -> State:
    """Logits `(batch, classes)` of every head, by name: "1" … for the layers' exits, and "final" in DeeBERT."""
    prefix, eps = released.encoder, config["layer_norm_eps"]

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, value: Tensor) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(names: tuple[str, str, str], hidden: Tensor) -> Tensor:
        query, key, value = (
            linear(name, hidden).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for name in names
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        scores = scores + (1 - mask)[:, None, None, :] * -10000.0
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)

    def bert_layer(i: int, hidden: Tensor) -> Tensor:
        layer = f"{prefix}.encoder.layer.{i}"
        read = attention(tuple(f"{layer}.attention.self.{n}" for n in ("query", "key", "value")), hidden)  # type: ignore[arg-type]
        hidden = norm(
            f"{layer}.attention.output.LayerNorm", linear(f"{layer}.attention.output.dense", read) + hidden
        )
        inner = F.gelu(linear(f"{layer}.intermediate.dense", hidden))
        return norm(f"{layer}.output.LayerNorm", linear(f"{layer}.output.dense", inner) + hidden)

    def albert_layer(i: int, hidden: Tensor) -> Tensor:
        group = i * released.groups // released.depth
        for n in range(released.inner):
            layer = f"{prefix}.encoder.albert_layer_groups.{group}.albert_layers.{n}"
            read = attention(tuple(f"{layer}.attention.{n}" for n in ("query", "key", "value")), hidden)  # type: ignore[arg-type]
            hidden = norm(f"{layer}.attention.LayerNorm", hidden + linear(f"{layer}.attention.dense", read))
            inner = F.gelu(linear(f"{layer}.ffn", hidden), approximate="tanh")
            hidden = norm(f"{layer}.full_layer_layer_norm", linear(f"{layer}.ffn_output", inner) + hidden)
        return hidden

    ids, mask = inputs["input_ids"], inputs["attention_mask"].float()
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    if prefix == "roberta":  # counted from behind the padding token's id, over what is no padding
        real = ids != config["pad_token_id"]
        positions = torch.where(real, real.cumsum(1) + config["pad_token_id"], config["pad_token_id"])
    types = inputs["token_type_ids"] if config["type_vocab_size"] > 1 else torch.zeros_like(ids)
    tables = {"word": ids, "position": positions, "token_type": types}
    hidden = sum(state[f"{prefix}.embeddings.{n}_embeddings.weight"][i] for n, i in tables.items())
    hidden = norm(f"{prefix}.embeddings.LayerNorm", hidden)
    if prefix == "albert":
        hidden = linear(f"{prefix}.encoder.embedding_hidden_mapping_in", hidden)
    shared = f"{prefix}.pooler" if prefix == "albert" else f"{prefix}.pooler.dense"
    logits = {}
    for i in range(released.depth):
        hidden = (albert_layer if prefix == "albert" else bert_layer)(i, hidden)
        pooler, classifier = {
            "deebert": (
                f"{prefix}.encoder.highway.{i}.pooler.dense",
                f"{prefix}.encoder.highway.{i}.classifier",
            ),
            "pabee": (shared, f"classifiers.{i}"),
            "elasticbert": (f"{prefix}.encoder.pooler.{i}.dense", f"classifiers.{i}"),
        }[released.layout]
        logits[str(i + 1)] = linear(classifier, torch.tanh(linear(pooler, hidden[:, 0])))
    if released.layout == "deebert":
        logits["final"] = linear("classifier", torch.tanh(linear(shared, hidden[:, 0])))
    return logits
