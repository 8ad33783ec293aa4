"""Figures of studies: one panel or many, in the style of the reports, with a title and a caption."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from offramp.reports.style import HEADLINE, WIDTH, add_legend, caption, entry, new_figure, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2  # panels side by side
MARK: dict[str, Any] = {"mfc": "white", "mew": 1.6, "ms": 6}  # hollow

Panels = Sequence[tuple[str, Callable[["Axes"], None]]]  # a title, and what draws the panel
Marks = Mapping[str, Mapping[str, Any]]  # styles of lines by label


@contextmanager
def single(height: float, title: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure of one panel, to be drawn on within the context."""
    with styled():
        figure, axes = new_figure(height)
        _headline(figure, title)
        yield figure, axes


def multiples(
    panels: Panels,
    title: str,
    words: str,
    marks: Marks,
    *,
    height: float = 2.9,
    columns: int = COLUMNS,
    sharey: bool = False,
    beside: int | None = None,
) -> Figure:
    """Small multiples with one legend for all.

    Args:
        panels: from left to right and downwards.
        words: of the caption.
        marks: of the legend.
        height: of a panel, in inches.
        columns: the most panels side by side.
        beside: as in `legend`.
    """
    from matplotlib.figure import Figure

    with styled():
        columns = min(columns, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(WIDTH, height * rows + 1.0), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
        for axes, (name, draw) in zip(grid, panels, strict=False):
            draw(axes)
            axes.set_title(shown(name), fontsize=11, fontweight="normal")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        legend(figure, marks, beside=beside)
        _headline(figure, title)
        caption(figure, words)
    return figure


def legend(figure: Figure, marks: Marks, *, beside: int | None = None) -> None:
    """One legend of a whole figure, beside the title; more than `beside` marks stand beside the panels."""
    from matplotlib.lines import Line2D

    across = beside is None or len(marks) <= beside
    location: Any = "outside upper right" if across else "outside right upper"
    lines = [Line2D([], [], label=entry(label), **style) for label, style in marks.items()]
    add_legend(figure, handles=lines, loc=location, ncols=len(lines) if across else 1, fontsize=10)


def rows_downwards(axes: Axes, names: Sequence[str]) -> None:
    """Named rows from the top to the bottom, without lines between them."""
    axes.set_yticks(range(len(names)), [shown(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def _headline(figure: Figure, title: str) -> None:
    lines = "\n".join(shown(line, HEADLINE) for line in title.split("\n"))
    figure.suptitle(lines, x=0.01, ha="left", fontweight="bold", fontsize=13)
