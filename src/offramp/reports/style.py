"""The style of figures, and their files: the same content gives the same bytes. Imports matplotlib on use."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from offramp._core.errors import MissingExtraError
from offramp._core.files import atomic_write
from offramp._core.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinct for every kind of colour vision; without the faint yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Ending = Literal["svg", "png"]
ENDINGS: tuple[Ending, ...] = ("svg", "png")  # of the files of figures
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CLEAN, ATTACKED = PALETTE[0], PALETTE[1]
INK, GREY, GRID = "#222222", "#6b6b6b", "#e6e6e6"
LONGEST = 60  # characters of a label
HEADLINE = 80  # characters above several panels
CAPTION = 115  # characters in a line below the axes
JOINER = "\u2060"  # has no width
WIDTH, DPI = 8.0, 200  # inches; a README shows 800 of the 1600 pixels

RC: Any = {  # matplotlib types each key, differently in every version
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "savefig.facecolor": "white",
    "text.parse_math": False,  # names come from outside: a $ is a dollar
    "text.usetex": False,
    "svg.hashsalt": "offramp",
    "svg.fonttype": "path",
}


def colour(position: int) -> str:
    """The colour of the method at a position; after seven they repeat."""
    return PALETTE[position % len(PALETTE)]


def marker(position: int) -> str:
    """The marker of the method at a position."""
    return MARKERS[position % len(MARKERS)]


@contextmanager
def styled() -> Iterator[None]:
    """Our style within the context; the user's own style does not change."""
    try:
        from matplotlib import rc_context
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "torch") from error
    with rc_context(RC):
        yield


def shown(label: str, longest: int = LONGEST) -> str:
    """A name for a figure, as `written_out`; of a long one the middle is left out."""
    line = written_out(label)
    return line if len(line) <= longest else f"{line[: longest // 2]}…{line[1 - longest // 2 :]}"


def metric_label(metric: str) -> str:
    """The name of a metric beside an axis."""
    return shown(metric.replace("_", " ").capitalize())


def written_out(text: str) -> str:
    """Text for a figure: on one line, with invisible characters and those that the font lacks as ⟨U+4E2D⟩."""
    font = glyphs()
    return "".join(c if ord(c) in font else f"⟨U+{ord(c):04X}⟩" for c in one_line(text))


@cache
def glyphs() -> frozenset[int]:
    """The characters of the font of all figures."""
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont(RC["font.family"])).get_charmap())


def entry(label: str) -> str:
    """A name for `add_legend`: matplotlib leaves out names that begin with an underscore."""
    return JOINER + shown(label)


def add_legend(owner: Axes | Figure, **options: Any) -> None:
    """The legend of axes or of a figure, of everything drawn with `label=entry(name)`."""
    for text in owner.legend(**options).get_texts():
        text.set_text(text.get_text().removeprefix(JOINER))


def new_figure(height: float, title: str = "") -> tuple[Figure, Axes]:
    """An empty figure of README width; call it within `styled`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    if title:
        axes.set_title(shown(title))
    return figure, axes


def new_panels(
    count: int, columns: int, heights: tuple[float, float], title: str, *, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure of README width with small panels; call it within `styled`.

    Args:
        count: of the panels to be drawn on; others of the last row are hidden.
        columns: the number of panels in a row.
        heights: inches of a row, and of all that stands around the rows.
        title: above all panels.
        sharex: whether panels share their x axes, as they share their y axes.
    """
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * heights[0] + heights[1]), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).ravel())
    for panel in panels[count:]:
        panel.set_visible(False)
    figure.suptitle(shown(title, HEADLINE), x=0.01, ha="left", fontweight="bold", fontsize=13)
    return figure, panels


def caption(figure: Figure, words: str) -> None:
    """A small note below the axes."""
    figure.supxlabel(fill(written_out(words), CAPTION), fontsize=9, color=GREY, x=0.01, ha="left")


def render(figure: Figure, ending: Ending) -> bytes:
    """A figure as an image without dates or versions in it: the same figure gives the same bytes."""
    image = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
    with styled():
        figure.savefig(image, format=ending, dpi=DPI if ending == "png" else "figure", metadata=metadata)
    return image.getvalue()


def save_figure(figure: Figure, stem: Path) -> None:
    """Write a figure as SVG and PNG, to a path without its ending; `OfframpError` where that fails."""
    for ending in ENDINGS:
        with atomic_write(stem.with_name(f"{stem.name}.{ending}")) as draft:
            draft.write_bytes(render(figure, ending))
