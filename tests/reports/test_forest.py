"""Estimates in rows: where they lie, what is cut, and what is left out."""

from __future__ import annotations

import math

from offramp.reports.forest import Estimate, Forest, forest_chart
from offramp.reports.html import macros

NAN = Estimate(math.nan, math.nan, math.nan)


def chart(methods: dict[str, dict[str, Estimate]], **options: object) -> Forest:
    made = forest_chart("c", "Title", methods, x="points", say=lambda e: f"{e.value:g}", **options)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_rows_go_downwards_and_values_to_the_right() -> None:
    made = chart({"a": {"x": Estimate(1, 0, 2), "y": Estimate(-1, -2, 0)}, "b": {"y": Estimate(3, 3, 3)}})
    assert [name for _, name in made.rows] == ["x", "y"]
    (first, second), (third,) = (drawing.marks for drawing in made.drawings)
    assert first[0] > made.lines[0] > second[0]
    assert second[1] > first[1]
    assert third[0] > first[0]
    assert third[1] > second[1], "the second method lies below the first in a row"
    assert first[2] == "a, x: 1"
    assert all(made.top < y < made.bottom for drawing in made.drawings for _, y, _ in drawing.marks)


def test_an_interval_that_would_hide_the_others_is_cut() -> None:
    made = chart(
        {"a": {"x": Estimate(1, 0.5, 1000), "y": Estimate(2, 1, 3)}}, dashed=(1.5,), claims={"a": 2.5}
    )
    assert made.x.high < 5
    assert made.drawings[0].whiskers[0][1] == made.x.last
    assert made.x.first < made.dashed[0] < made.drawings[0].claim < made.x.last  # type: ignore[operator]


def test_what_is_undefined_is_left_out() -> None:
    made = chart({"a": {"x": Estimate(1, math.nan, math.nan), "y": NAN}})
    assert len(made.drawings[0].marks) == 1
    assert made.drawings[0].whiskers == ()
    assert forest_chart("c", "t", {"a": {"x": NAN}}, x="", say=str) is None
    assert forest_chart("c", "t", {}, x="", say=str) is None


def test_names_out_of_data_are_text() -> None:
    made = chart({"<b>method</b>": {"<script>x</script>": Estimate(1, 0, 2)}})
    drawn = str(macros().forest(made))
    assert "<script" not in drawn
    assert "<b>" not in drawn
    assert "&lt;script&gt;x&lt;/script&gt;" in drawn
