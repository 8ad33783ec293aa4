"""Text of any origin for Markdown pages."""

from __future__ import annotations

import re

from offramp._core.text import one_line

SPECIAL = str.maketrans({"<": "&lt;", "&": "&amp;", **{mark: "\\" + mark for mark in "\\|`*~$"}})
# Underscores at the ends of words, links, and what would begin a heading, a list or a quote.
MARKS = re.compile(r"(?<![^\W_])_|_(?![^\W_])|(?<=\])\(|^>|^[#+-](?=[#+\s-]|$)")
LIST = re.compile(r"^(\d+)(?=[.)](?:\s|$))")


def plain_markdown(content: str) -> str:
    """Text for Markdown, on one line: shown as it is, without HTML, links, emphasis, formulas or new columns."""
    plain = LIST.sub(r"\1\\", one_line(content).translate(SPECIAL))
    return MARKS.sub(r"\\\g<0>", plain)
