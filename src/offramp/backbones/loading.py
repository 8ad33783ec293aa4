"""Load pretrained encoders by name: packaged, from a folder, or from the hub."""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from offramp._core.damaged_files import first_sentence
from offramp._core.errors import ModelError, OfframpError, unknown_name
from offramp._core.library import hub, quiet
from offramp._core.paths import UserPath, user_path
from offramp._core.text import some_of
from offramp.backbones.backbone import shared_layers
from offramp.backbones.packaged import PACKAGED, fetch_encoder
from offramp.backbones.specs import spec_of
from offramp.backbones.tokenizer_files import read_tokenizer
from offramp.backbones.weight_files import check_files, refuse_undefined

T = TypeVar("T")

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")


def load_backbone(
    name: UserPath, *, depth: int | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A pretrained encoder without a head, in float32 and evaluation mode, and its tokenizer.

    Args:
        name: a packaged encoder (`minilm-l6`, `mpnet-base`, `minilm-l3`), a folder that `save_pretrained` or
            sentence-transformers wrote, or a hub id.
        depth: number of first layers to keep.

    Returns:
        The encoder and its tokenizer. A pooler that the checkpoint lacks is None, never random.

    Raises:
        ModelError: no files, no encoder, weights that do not fit or are missing, or no tokenizer.
        DataError: a packaged encoder that cannot be downloaded.
    """
    source = _source(name)
    check_files(Path(source))
    config = _read(source, "config", lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))
    spec_of(config)
    if depth is not None:
        config = truncated_config(config, depth)
    tokenizer = load_tokenizer(source, config)
    # The library draws a missing pooler at random before it is dropped: protect the caller's generator.
    with torch.random.fork_rng(devices=[]):
        model, report = _read(
            source,
            "weights",
            lambda: AutoModel.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,  # training needs it, for any type in the checkpoint
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # refused below, with names and sizes
                output_loading_info=True,
            ),
        )
    _check_weights(source, model, report)
    refuse_undefined(model.named_parameters(), source)
    return model, tokenizer


def load_tokenizer(name: UserPath, config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of an encoder.

    Args:
        name: as in `load_backbone`; a folder may hold a tokenizer only.
        config: config of the encoder, which names the kind of tokenizer if the files do not.

    Raises:
        ModelError: no tokenizer, or a tokenizer with more tokens than the encoder.
    """
    folder = user_path(name, "the encoder")
    source = str(folder) if has_tokenizer(folder) else _source(name)
    tokenizer = _read(source, "tokenizer", lambda: read_tokenizer(source, config=config))
    _check_tokenizer(source, tokenizer, config)
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's vocabulary, in any of the library's formats."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def truncated_config(config: PreTrainedConfig, depth: int) -> PreTrainedConfig:
    """A copy of an encoder's config that loads the first `depth` layers of a checkpoint unchanged.

    Raises:
        ModelError: fewer than one layer, too many layers, or a cut that shared layers do not allow.
    """
    whole = config.num_hidden_layers
    if not 1 <= depth <= whole:
        raise ModelError(f"expected a depth in 1..{whole}, the layers of this encoder, got {depth}")
    cut = copy.deepcopy(config)
    cut.num_hidden_layers = depth
    if getattr(cut, "layer_types", None) is not None:
        cut.layer_types = list(cut.layer_types[:depth])
    groups = getattr(cut, "num_hidden_groups", 1)
    if groups == 1:
        return cut
    fitting = {}  # depth: how many of ALBERT's groups of shared layers it uses
    for kept in range(1, whole + 1):
        used = shared_layers(whole, groups)[:kept]
        if shared_layers(kept, used[-1] + 1) == used:
            fitting[kept] = used[-1] + 1
    if depth not in fitting:
        raise ModelError(
            f"cannot keep {depth} of {whole} layers: they are shared in {groups} groups, and the cut would share "
            f"them otherwise; depths that fit: {', '.join(map(str, fitting))}"
        )
    cut.num_hidden_groups = fitting[depth]
    return cut


def _source(name: UserPath) -> str:
    """The folder or hub id that the library loads."""
    if not isinstance(name, str | PathLike) or not str(name).strip():
        raise ModelError(
            f"expected an encoder's name, folder or hub id, got {name!r}: packaged encoders are {', '.join(PACKAGED)}"
        )
    if isinstance(name, str) and name in PACKAGED:
        return str(fetch_encoder(name))
    folder = user_path(name, "the encoder")
    if folder.is_dir():
        return str(_transformer_folder(folder))
    if folder.exists():
        raise ModelError(
            f"expected a folder with config.json and weights, got the file {folder}: give its folder"
        )
    if not isinstance(name, str) or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"no such folder: {folder} (packaged encoders: {', '.join(PACKAGED)})")
    if difflib.get_close_matches(name, PACKAGED, n=1, cutoff=0.8):  # the hub would take long to answer
        raise ModelError(f"{unknown_name('packaged encoder', name, PACKAGED)} (a hub id: write owner/name)")
    return name


def _transformer_folder(folder: Path) -> Path:
    """The folder with config.json: this one, or the first module of a sentence-transformers model."""
    if (folder / "config.json").is_file():
        return folder
    modules = folder / "modules.json"
    if modules.is_file():
        listed = _read(str(folder), "modules.json", lambda: json.loads(modules.read_text("utf-8")))
        for module in listed:
            if (folder / module["path"] / "config.json").is_file():
                return folder / str(module["path"])
    return folder  # `check_files` says what it holds


def _check_weights(source: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuse random weights, with which the library fills gaps in a checkpoint."""
    misfits = sorted(
        f"{key} {tuple(there)} for {tuple(here)}" for key, there, here in report["mismatched_keys"]
    )
    if misfits:
        raise ModelError(
            f"the weights in {source} do not fit its config.json: {some_of(misfits, 6)}; restore the config that "
            "the weights were saved with"
        )
    missing = sorted(report["missing_keys"])
    if lacking := [key for key in missing if not key.startswith("pooler")]:
        raise ModelError(
            f"the checkpoint in {source} lacks weights of {type(model).__name__}: {some_of(lacking, 6)}; it is "
            "incomplete, or of another architecture than its config.json says"
        )
    if missing:
        model.register_module("pooler", None)


def _check_tokenizer(source: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuse a missing tokenizer (the library may make an empty one) or another model's."""
    if not tokenizer.is_fast:
        raise ModelError(
            f"expected a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__} in {source}, which runs in "
            "Python and reports neither offsets nor truncation: use an encoder with a fast tokenizer"
        )
    words = len(tokenizer)
    if words <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"{source} holds no tokenizer: save it beside the model with tokenizer.save_pretrained"
        )
    if words > config.vocab_size:
        raise ModelError(
            f"the tokenizer in {source} has {words} tokens but the model only {config.vocab_size}: they do "
            "not belong together; save the model's own tokenizer beside it"
        )
    padding = config.pad_token_id
    if tokenizer.pad_token_id is None and padding is not None and padding < words:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer in {source} has no padding token: name one as pad_token in its tokenizer_config.json"
        )


def _read(source: str, what: str, load: Callable[[], T]) -> T:
    """Load quietly; all errors that a damaged or foreign file causes become one clear error."""
    try:
        with quiet(), hub():
            return load()
    except OfframpError:
        raise
    except Exception as error:
        said = first_sentence(error)
        if Path(source).is_dir():
            raise ModelError(
                f"cannot read the {what} in {source}: expected an encoder as save_pretrained writes it "
                "(config.json, model.safetensors, tokenizer.json); save it again, or delete the folder if it is "
                f"in offramp's own cache. The library said: {said}"
            ) from error
        message = unknown_name("packaged encoder", source, PACKAGED)
        raise ModelError(
            f"cannot load the {what} of {source!r} from the hub: {message}; or give the path of a folder, or go "
            f"online for a hub id. The library said: {said}"
        ) from error
