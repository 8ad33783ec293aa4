"""Text that any tokenizer and any file format can carry."""

from __future__ import annotations

import re

# A lone surrogate is no character and cannot be encoded; NUL ends strings in C code and has no token.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD, one for one: character offsets are kept."""
    return _UNUSABLE.sub("\ufffd", text)
