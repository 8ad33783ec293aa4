from __future__ import annotations

from offramp.reports.style import render
from offramp.studies.panels import multiples, rows_downwards, single
from offramp.studies.training.tables import name_of

NAMES = ["_under", "$x$ & $y$", "[/quote]", "نص"]


def test_names_of_methods_and_tasks_are_drawn_as_they_are() -> None:
    marks = {name: {"color": "red", "marker": "o", "ls": ""} for name in NAMES}
    panels = [(name, lambda axes: axes.plot([0, 1], [0, 1])) for name in NAMES]
    figure = multiples(panels, "Title_$x$\n_second $y$", "Words 中 $z$", marks)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == NAMES
    assert [axes.get_title(loc="left") for axes in figure.axes] == NAMES
    assert figure.get_suptitle() == "Title_$x$\n_second $y$"
    assert figure.get_supxlabel() == "Words ⟨U+4E2D⟩ $z$"
    assert b"<svg" in render(figure, "svg")
    with single(2.0, "_t") as (rows, axes):
        rows_downwards(axes, NAMES)
    assert [label.get_text() for label in axes.get_yticklabels()] == NAMES
    assert b"<svg" in render(rows, "svg")


def test_an_underscore_is_a_space_only_between_words() -> None:
    assert name_of("sweet") == "SWEET"
    assert (name_of("low_rate"), name_of("_b<i>"), name_of("a_ $x$")) == ("low rate", "_b<i>", "a_ $x$")
