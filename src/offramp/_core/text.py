"""Text that any tokenizer and any file format can carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offramp._core.errors import DataError

# A lone surrogate is no character and cannot be encoded; NUL ends strings in C code and has no token.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text with each NUL and lone surrogate replaced by U+FFFD: character offsets stay the same."""
    return _UNUSABLE.sub("\ufffd", text)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """Some names for a message, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def text_lists(
    texts: Iterable[str], pairs: Iterable[str] | None = None
) -> tuple[list[str], list[str] | None]:
    """Texts, and second texts where given, as lists; any iterable works, a generator too.

    Raises:
        DataError: one string or no iterable in place of texts, values that are no strings, or another number of
            second texts.
    """
    first, second = _listed(texts), None if pairs is None else _listed(pairs)
    for text in (*first, *(second or ())):
        if not isinstance(text, str):
            raise DataError(f"expected texts as strings, got {type(text).__name__}: {text!r:.80}")
    if second is not None and len(first) != len(second):
        raise DataError(
            f"expected one second sentence for each text, got {len(first)} texts and {len(second)} pairs"
        )
    return first, second


def text_columns(window: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """A stretch of a stream of texts or of pairs, as `text_lists` gives it; `DataError` where it is neither."""
    if not any(isinstance(row, tuple | list) for row in window):
        return text_lists(window)
    for row in window:
        if not isinstance(row, tuple | list) or len(row) != 2:
            raise DataError(f"expected texts, or pairs of texts alone, got {row!r:.80} among them")
    return text_lists([a for a, _ in window], [b for _, b in window])


def _listed(texts: Any) -> list[Any]:
    if isinstance(texts, str):
        raise DataError("expected a list of texts, got one string: put it in a list")
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise DataError(f"expected a list of texts, got {type(texts).__name__}: {texts!r:.80}")
    return list(texts)
