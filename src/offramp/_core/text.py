"""Read texts in every accepted form, and clean them for any tokenizer and file format."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from offramp._core.errors import DataError
from offramp._core.tables import brief, read_rows

# A lone surrogate is not a character and cannot be encoded; NUL ends strings in C code and has no token.
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
# Control, format (zero-width, bidirectional), private, surrogates, separators of lines and paragraphs.
_HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def clean_text(text: str) -> str:
    """The text with each NUL and lone surrogate replaced by U+FFFD: character offsets stay the same."""
    return _UNUSABLE.sub("\ufffd", text)


def some_of(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Some names for a message, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + rest


def visible(text: str) -> str:
    """The text with invisible characters written out, as ⟨U+200B⟩; line breaks and tabs stay."""
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if c not in "\n\t" and unicodedata.category(c) in _HIDDEN else c for c in text
    )


def one_line(text: str) -> str:
    """The text on one line, its invisible characters written out: nothing in it steers a terminal."""
    return visible(" ".join(text.split()))


def slug(name: str) -> str:
    """The name as that of a file or folder: without separators or spaces, of at most 100 characters."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "-"
    digest = sha256(name.encode(errors="surrogatepass")).hexdigest()
    return stem if len(stem) <= 100 else f"{stem[:91]}-{digest[:8]}"


def read_texts(source: Any, pairs: Any = None) -> tuple[list[str], list[str] | None]:
    """Texts in any accepted form, and the second texts of pairs or None.

    Args:
        source: strings, pairs of strings, or rows with the columns `text` and, for pairs, `text_pair`, in any form
            that `read_rows` reads.
        pairs: second texts, if `source` holds only the first ones.

    Raises:
        DataError: one string, texts of another type, mixed forms, missing columns, or a wrong number of second texts.
    """
    rows = list(read_rows(source))
    if pairs is not None:
        second = list(read_rows(pairs))
        if len(rows) != len(second):
            raise DataError(
                f"expected one second sentence per text, got {len(rows)} texts and {len(second)} pairs"
            )
        return _strings(rows), _strings(second)
    if any(isinstance(row, Mapping) for row in rows):
        return _columns(rows)
    if not any(isinstance(row, tuple | list) for row in rows):
        return _strings(rows), None
    for row in rows:
        if not isinstance(row, tuple | list) or len(row) != 2:
            raise DataError(f"expected texts, or pairs of texts alone, got {brief(row)} among them")
    return _strings([first for first, _ in rows]), _strings([second for _, second in rows])


def check_pairs(pairs: bool, trained: bool | None, name: str, *, model: str = "the model") -> None:
    """Raise `DataError` if a model was trained on pairs of texts and is given single texts, or the reverse.

    Args:
        pairs: whether the data are pairs.
        trained: whether the model was trained on pairs; None if unknown.
        name, model: of the data and the model, for the message.
    """
    if trained is None or pairs == trained:
        return
    if trained:
        raise DataError(
            f"{model} was trained on pairs of texts, but {name} has single texts: give the second texts too "
            "(text_pair, or pairs= of predict)"
        )
    raise DataError(
        f"{model} was trained on single texts, but {name} has pairs: give one text each, or a model trained on pairs"
    )


def _columns(rows: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """The columns `text` and `text_pair` of rows."""
    paired = any(isinstance(row, Mapping) and "text_pair" in row for row in rows)
    names = ("text", "text_pair") if paired else ("text",)
    for row in rows:
        if not isinstance(row, Mapping):
            raise DataError(f"expected rows with a column 'text' alone, got {brief(row)} among them")
        for name in names:
            if name not in row:
                raise DataError(
                    f"expected the columns 'text' and, for pairs, 'text_pair', got {', '.join(map(repr, row))}: rename "
                    "them, or load the data with offramp.load_data"
                )
    first, *second = (_strings([row[name] for row in rows]) for name in names)
    return first, second[0] if second else None


def _strings(texts: list[Any]) -> list[str]:
    for text in texts:
        if not isinstance(text, str):
            remedy = ": drop the rows without text" if text is None else ""
            raise DataError(f"expected texts as strings, got {type(text).__name__}: {brief(text)}{remedy}")
    return texts
