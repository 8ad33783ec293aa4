"""Text that any tokenizer and any file format can carry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offramp._core.errors import DataError

# A lone surrogate is no character and cannot be encoded; NUL ends strings in C code and has no token.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
_HIDDEN = ("Cc", "Cf", "Co", "Cs")  # control, format (zero-width, bidirectional), private, surrogates


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD, one for one: character offsets are kept."""
    return _UNUSABLE.sub("\ufffd", text)


def visible(text: str) -> str:
    """The text with invisible characters written out, as ⟨U+200B⟩; line breaks and tabs stay."""
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if c not in "\n\t" and unicodedata.category(c) in _HIDDEN else c for c in text
    )


def text_lists(
    texts: Iterable[str], pairs: Iterable[str] | None = None
) -> tuple[list[str], list[str] | None]:
    """Texts, and second ones where there are such, as lists; any iterable will do, a generator too.

    Raises:
        DataError: one string, or no iterable at all, instead of texts; other things than strings; another number of
            second texts.
    """
    first, second = _listed(texts), None if pairs is None else _listed(pairs)
    for text in (*first, *(second or ())):
        if not isinstance(text, str):
            raise DataError(f"expected texts as strings, got {type(text).__name__}: {text!r:.80}")
    if second is not None and len(first) != len(second):
        raise DataError(
            f"expected one second sentence a text, got {len(first)} texts and {len(second)} pairs"
        )
    return first, second


def text_columns(window: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """A stretch of a stream, of texts or of pairs of texts, as `text_lists`; `DataError` where it is neither."""
    if not any(isinstance(one, tuple | list) for one in window):
        return text_lists(window)
    for one in window:
        if not isinstance(one, tuple | list) or len(one) != 2:
            raise DataError(f"expected texts, or pairs of texts alone, got {one!r:.80} among them")
    return text_lists([a for a, _ in window], [b for _, b in window])


def _listed(texts: Any) -> list[Any]:
    if isinstance(texts, str):
        raise DataError("expected a list of texts, got one string: put it in a list")
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise DataError(f"expected a list of texts, got {type(texts).__name__}: {texts!r:.80}")
    return list(texts)
