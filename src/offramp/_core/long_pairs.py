"""Long texts in pairs, shortened before they are tokenised.

The tokenizers library keeps what it cuts off. Of a pair it keeps every piece of the first text with every piece of the
second, so time and memory grow with the product of the lengths: two texts of 4,000 characters took 25 s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

LONG = 16  # characters for each token of the maximum length, from which on a pair is looked at
MARGIN = 64  # tokens kept beyond the maximum length: a cut changes no token that far from it

Spans = Sequence[tuple[int, int]]  # of each token: its characters


def shorten_pairs(
    first: list[str], second: list[str], max_length: int, spans: Callable[[str], Spans], *, left: bool = False
) -> tuple[list[str], list[str]]:
    """The pairs, where each text has at most some tokens more than an input can take.

    Args:
        first: the first text of each pair.
        second: the second one.
        max_length: longest input in tokens. The tokens cut off here would all be cut off later.
        spans: the tokens of a text by itself.
        left: whether texts are cut on the left.
    """
    short = [
        _shorten(pair, (spans(pair[0]), spans(pair[1])), max_length + MARGIN, left)
        if sum(map(len, pair)) > LONG * max_length
        else pair
        for pair in zip(first, second, strict=True)
    ]
    return [a for a, _ in short], [b for _, b in short]


def _shorten(pair: tuple[str, str], spans: tuple[Spans, Spans], most: int, left: bool) -> tuple[str, str]:
    """The longer text keeps a token more: the library cuts the longer one less if it must cut both."""
    lengths = len(spans[0]), len(spans[1])
    return (
        _cut(pair[0], spans[0], most + (lengths[0] > lengths[1]), left),
        _cut(pair[1], spans[1], most + (lengths[1] > lengths[0]), left),
    )


def _cut(text: str, spans: Spans, most: int, left: bool) -> str:
    """A text with its first tokens, or its last ones."""
    if len(spans) <= most:
        return text
    return text[spans[-most][0] :] if left else text[: spans[most - 1][1]]
