"""Read a tokenizer as its files mean it: the library lower-cases where no file says whether to."""

from __future__ import annotations

import json
import logging
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file

from offramp._core.errors import ModelError
from offramp._core.text import some_of

_LOG = logging.getLogger(__name__)

STRAY = 0.01  # share of words with capitals that an uncased vocabulary may have


def read_tokenizer(source: str, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or at a hub id, cased as its files say, or else as its vocabulary is.

    Args:
        source: the folder or hub id.
        options: those of `AutoTokenizer.from_pretrained`.

    Raises:
        ModelError: special tokens that the vocabulary lacks.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    if not tokenizer.is_fast:
        return tokenizer
    stated, definition = get_tokenizer_config(source), _definition(source)
    _refuse_invented_tokens(source, tokenizer, listed=bool(definition) or "added_tokens_decoder" in stated)
    capitals = _capitals(tokenizer)
    cased = len(capitals) > STRAY * len(tokenizer)
    if "do_lower_case" not in stated:
        normalizer = definition.get("normalizer") or {}
        lower = normalizer.get("lowercase", not cased)  # BERT's normalizer alone has this key
        if _lowers(tokenizer) and not lower:
            return AutoTokenizer.from_pretrained(source, **options, do_lower_case=False)
    elif _lowers(tokenizer) and cased:
        _LOG.warning(
            "the tokenizer in %s lower-cases, as its tokenizer_config.json says, but its vocabulary has words with "
            "capitals (%s): if the encoder is a cased one, set do_lower_case to false there",
            source,
            some_of(capitals),
        )
    elif stated["do_lower_case"] is False and not cased:
        _LOG.warning(
            "the tokenizer in %s keeps capitals, as its tokenizer_config.json says, but no word of its vocabulary has "
            "any: if the encoder is an uncased one, set do_lower_case to true there",
            source,
        )
    return tokenizer


def _definition(source: str) -> dict[str, Any]:
    """The content of `tokenizer.json`; empty without one."""
    path = cached_file(source, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:
        content: dict[str, Any] = json.load(file)
    return content


def _lowers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer makes capitals small before it looks for words."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "A" not in str(normalizer.normalize_str("A"))


def _capitals(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The words of the vocabulary with capitals; special tokens and names in brackets are no words."""
    special = set(tokenizer.all_special_tokens)
    words = (word for word in sorted(tokenizer.get_vocab()) if word not in special and word[:1] not in "[<")
    return [word for word in words if word != word.lower()]


def _refuse_invented_tokens(source: str, tokenizer: PreTrainedTokenizerBase, *, listed: bool) -> None:
    """Refuse special tokens that the library appended to a bare vocabulary: the encoder has not learned them."""
    ids = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    appended = [token for token, id in ids if id >= tokenizer.vocab_size]
    if appended and not listed and tokenizer.vocab_size > 0:
        raise ModelError(
            f"the vocabulary in {source} lacks the special tokens {some_of(appended, 6)}: copy the encoder's "
            "tokenizer.json or tokenizer_config.json beside it"
        )
