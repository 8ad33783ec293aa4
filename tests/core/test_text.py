from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.text import one_line, slug


@given(st.text())
def test_one_line_holds_nothing_that_steers_a_terminal(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert line.isprintable() or not line.replace("⟨", "").isascii()
    assert not set(line) & {"\x1b", "\r", "\n", "\t", "\u202e", "\u2028", "\x9b", "\x00"}
    assert one_line(line) == line


@given(st.text())
def test_a_slug_is_the_name_of_one_file(text: str) -> None:
    name = slug(text)
    assert 0 < len(name) <= 100
    assert not set(name) & set('/\\ :*?"<>|\n\x00')
    assert not name.startswith(".")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("../../x", "x"), ("google/bert", "google-bert"), ("macro_f1", "macro_f1"), ("..", "-"), ("نص", "نص")],
)
def test_slugs(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_long_names_that_begin_alike_keep_different_slugs() -> None:
    assert slug("x" * 300) != slug("x" * 299)
