"""HTML that cannot be mistaken for text: what was not escaped does not type-check as `Html`.

Texts under attack, labels, paths and names all come from outside; they enter a page through `text` alone.
"""

from __future__ import annotations

import html
import unicodedata
from typing import NewType

Html = NewType("Html", str)

HIDDEN = ("Cc", "Cf", "Co", "Cs")  # control, format (zero-width, bidirectional), private, surrogates
VOID = ("meta", "img", "br")


def text(content: object) -> Html:
    """Any content as text of a page: escaped, and with characters that would not be seen made visible."""
    return Html(html.escape(visible(str(content))))


def visible(content: str) -> str:
    """The text with its invisible characters written out, as ⟨U+200B⟩; line breaks and tabs stay."""
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if c not in "\n\t" and unicodedata.category(c) in HIDDEN else c for c in content
    )


def tag(name: str, /, *children: Html, **attributes: object) -> Html:
    """An element. Attribute values are escaped; a trailing underscore frees Python's own words (`class_`)."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(children)}</{name}>")


def join(parts: list[Html]) -> Html:
    """Elements one after another."""
    return Html("\n".join(parts))
