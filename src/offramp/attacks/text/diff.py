"""One attacked example as a coloured diff, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from html import escape
from typing import Any

from rich.text import Text

from offramp._core.text import one_line, visible
from offramp.attacks.text.attacked_text import WORD

REMOVED, ADDED = "red strike", "bold green"
_HTML = {
    REMOVED: '<del style="color:#b3261e">{}</del>',
    ADDED: '<ins style="color:#1b6e3c;font-weight:600;text-decoration:none">{}</ins>',
}


def diff_text(row: Mapping[str, Any]) -> Text:
    """A row of an `AttackResult` for the terminal: exits, then the texts with removed and added words."""
    lines = [Text(one_line(headline(row)), style="bold")]
    for stretches in marked_words(row):
        line, before = Text(), ""
        for text, style in stretches:
            if (before, style) == (REMOVED, ADDED):
                line.append("→", "dim")  # without colours, the two words would be one
            line.append(visible(text), style)
            before = style
        lines.append(line)
    return Text("\n").join(lines)


def diff_html(row: Mapping[str, Any]) -> str:
    """A row of an `AttackResult` as a fragment of HTML; every text is escaped."""
    lines = [f"<strong>{escape(headline(row))}</strong>"]
    for stretches in marked_words(row):
        lines.append("".join(_HTML[s].format(escape(text)) if s else escape(text) for text, s in stretches))
    return '<div class="attack-diff">' + "".join(f"<p>{line}</p>" for line in lines) + "</div>"


def headline(row: Mapping[str, Any]) -> str:
    """The exit layers before and after, and the number of changed words."""
    line = f"layer {row['clean_layer']} → {row['adversarial_layer']}"
    line += f", {row['words_changed']} of {row['words']} words changed"
    if row["clean_prediction"] != row["adversarial_prediction"]:
        line += f", prediction {row['clean_prediction']} → {row['adversarial_prediction']}"
    return line


def marked_words(row: Mapping[str, Any]) -> Iterator[list[tuple[str, str]]]:
    """For each segment its stretches: (characters, style), with an empty style for unchanged ones."""
    for name in ("text", "text_pair"):
        if row.get(name) is None:
            continue
        before, after = _pieces(row[name]), _pieces(row[f"adversarial_{name}"])
        stretches = []
        for tag, i, j, k, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag == "equal":
                stretches.append(("".join(before[i:j]), ""))
            else:
                changed = (("".join(before[i:j]), REMOVED), ("".join(after[k:end]), ADDED))
                stretches += [stretch for stretch in changed if stretch[0]]
        yield stretches


def _pieces(text: str) -> list[str]:
    """Words, and the characters between them."""
    pieces, done = [], 0
    for match in WORD.finditer(text):
        pieces += [text[done : match.start()], match.group()]
        done = match.end()
    return [piece for piece in (*pieces, text[done:]) if piece]
