"""Constraints of an attack, checked on its finished rows by an implementation that shares no code with it.

Words are read off the strings again, character by character; nothing is taken from `attacks.text` or
`attacks.constraints`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

JOINERS = "'’-\u2010\u2011"
ACCENTS = range(0x300, 0x370)
LEAST = 3  # words that may change however short a text is, unless the attack says otherwise
NOISE = 1e-6  # of a cosine

Pieces = tuple[list[str], list[str]]  # words, and what stands before, between and behind them


def breaches(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[str]:
    """Short names of the constraints that a row breaks; none if all hold.

    Args:
        row: of an attack's table.
        metadata: of the attack: its `options`, and `fewest` and `min_similarity` if it has them.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    options = metadata.get("options") or {}
    # An attack may have had no query left to put its words in front.
    front = str(options.get("trigger") or "").split() if row["words_changed"] else []
    sides = list(_sides(row, front))
    if any(len(a[0]) != len(b[0]) for a, b in sides):
        return ["number of words"]
    broken = [] if all(a[1] == b[1] for a, b in sides) else ["characters between words"]
    words = sum(len(before[0]) for before, _ in sides)
    changed = [(a, b) for before, after in sides for a, b in zip(before[0], after[0], strict=True) if a != b]
    if len(changed) + len(front) != row["words_changed"] or words != row["words"]:
        broken.append("count of words")
    if len(changed) > word_budget(options.get("words", 0.1), words, int(metadata.get("fewest", LEAST))):
        broken.append("word budget")
    if any(old.lower() in ENGLISH_STOP_WORDS for old, _ in changed):
        broken.append("stop words")
    limit = options.get("max_edits")
    if limit is not None and sum(distance(*pair) for pair in changed) > limit:
        broken.append("edit distance")
    # A text that was made for one model may change the prediction of another.
    preserve = "nothing" if "transferred_from" in metadata else str(options.get("keep", "nothing"))
    answers = row["clean_prediction"], row["adversarial_prediction"]
    must_stay = preserve == "prediction" or (preserve == "label" and answers[0] == row["label"])
    if must_stay and answers[1] != answers[0]:
        broken.append(f"{preserve} kept")
    least, similarity = metadata.get("min_similarity") or 0.0, row["similarity"]
    measured = similarity is not None and not math.isnan(similarity)
    if measured and row["words_changed"] and similarity < least - NOISE:
        broken.append("similarity")
    return broken


def _sides(row: Mapping[str, Any], front: Sequence[str]) -> Iterator[tuple[Pieces, Pieces]]:
    """Each segment before and after, taken apart; words in front are taken off."""
    for name in ("text", "text_pair"):
        if row.get(name) is not None:
            after = str(row[f"adversarial_{name}"])
            lead = "".join(f"{word} " for word in front) if name == "text" else ""
            yield take_apart(str(row[name])), take_apart(after.removeprefix(lead))


def take_apart(text: str) -> Pieces:
    """The words of a text and what stands around them: one more than there are words."""
    words, around, start, at = [], [], 0, 0
    while at < len(text):
        end = _word_end(text, at)
        if end > at:
            words.append(text[at:end])
            around.append(text[start:at])
            start = at = end
        else:
            at += 1
    return words, [*around, text[start:]]


def _word_end(text: str, at: int) -> int:
    """End of the word that begins at a position; the position itself if none does."""
    end = _run_end(text, at)
    while end > at and end < len(text) and text[end] in JOINERS:
        further = _run_end(text, end + 1)
        if further == end + 1:
            break
        end = further
    return end


def _run_end(text: str, at: int) -> int:
    """End of a run of letters and digits, with accents; the position itself if none begins."""
    if at >= len(text) or not text[at].isalnum():
        return at
    while at < len(text) and (text[at].isalnum() or ord(text[at]) in ACCENTS):
        at += 1
    return at


def word_budget(limit: float | int, words: int, fewest: int) -> int:
    """How many of the words may change."""
    if isinstance(limit, int):
        return limit
    share = math.floor(limit * words)
    return max(fewest, share if math.isclose(share, limit * words, abs_tol=1e-9) else share + 1)


def distance(before: str, after: str) -> int:
    """Levenshtein distance, by the full table."""
    table = {(i, 0): i for i in range(len(before) + 1)} | {(0, j): j for j in range(len(after) + 1)}
    for i, old in enumerate(before, start=1):
        for j, new in enumerate(after, start=1):
            replaced = table[i - 1, j - 1] + (old != new)
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, replaced)
    return table[len(before), len(after)]
