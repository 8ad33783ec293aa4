"""Line charts for the page: geometry only. The template `charts.svg.j2` draws them, and the style sheet colours them.

Lengths are in the units of the chart's view box, which is as wide as `WIDTH` and scales with the screen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from offramp.reports.style import PALETTE

WIDTH, PLOT = 520.0, 240.0  # of the view box; height of the plot
LEFT, RIGHT, BOTTOM = 58.0, 14.0, 56.0
ENTRY = 20.0  # height of a line of the legend
LONGEST, BRIEF = 26, 14  # characters of a name in a legend of two and of three columns

Point = tuple[float, float]


@dataclass(frozen=True)
class Lines:
    """One method of a chart.

    Attributes:
        label: its name.
        points: `(x, y)` along the line; none for marks alone.
        band: `(x, low, high)` along the line.
        marks: `(x, y, words)`: single points with what they say.
        whiskers: `(x, low, high)`: intervals of the marks.
    """

    label: str
    points: Sequence[Point] = ()
    band: Sequence[tuple[float, float, float]] = ()
    marks: Sequence[tuple[float, float, str]] = ()
    whiskers: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """An axis with its ticks: a value `low` lies at `first`, a value `high` at `last`."""

    label: str
    low: float
    high: float
    first: float
    last: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Where a value lies; values beyond the ends lie at them."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)


@dataclass(frozen=True)
class Drawing:
    """The shapes of one method: paths of its line and band, marks and whiskers, in the colour of that number."""

    label: str
    colour: int
    line: str
    band: str
    marks: tuple[tuple[float, float, str], ...]
    whiskers: tuple[tuple[float, float, float], ...]
    entry: Point


@dataclass(frozen=True)
class Chart:
    """A chart to draw; `title` says what it shows, `note` how to read it."""

    id: str
    title: str
    note: str
    x: Axis
    y: Axis
    top: float
    height: float
    drawings: tuple[Drawing, ...]
    width: float = WIDTH


def line_chart(
    id: str,
    title: str,
    lines: Sequence[Lines],
    *,
    x: str,
    y: str,
    span: tuple[float, float] | None = None,
    at: Sequence[float] | None = None,
    write: tuple[Callable[[float], str], Callable[[float], str]] | None = None,
    note: str = "",
) -> Chart | None:
    """Place methods in a chart; None where no method has a defined value.

    Args:
        id: of the element, unique on the page.
        title: what the chart shows.
        lines: the methods; undefined values are left out.
        x, y: labels of the axes.
        span: the range of x; None covers all values.
        at: the ticks of x; None chooses round ones.
        write: how ticks of x and of y are written; by default as short numbers.
        note: how to read it.
    """
    lines = [_defined(series) for series in lines]
    if not _pairs(lines):
        return None
    entries, below = legend([series.label for series in lines])
    top = below + 36  # the label of y
    write_x, write_y = write or (short, short)
    low, high = span or _span(_values(lines, 0), pad=0.04)
    across = axis(x, low, high, (LEFT, WIDTH - RIGHT), write_x, at)
    seen = [(px, py) for px, py in _pairs(lines) if low <= px <= high]
    bottom, above = _span([py for _, py in seen], pad=0.06)
    up = axis(y, bottom, above, (top + PLOT, top), write_y)
    drawings = tuple(
        _drawing(series, i % len(PALETTE), across, up, entries[i]) for i, series in enumerate(lines)
    )
    return Chart(id, title, note, across, up, top, top + PLOT + BOTTOM, drawings)


def legend(labels: Sequence[str]) -> tuple[list[Point], float]:
    """Where the entries of a legend at the top lie, and its height."""
    columns = 3 if all(len(label) <= BRIEF for label in labels) else 2
    spots = [
        (LEFT + i % columns * (WIDTH - LEFT) / columns, 10 + ENTRY * (i // columns))
        for i in range(len(labels))
    ]
    return spots, ENTRY * math.ceil(len(labels) / columns)


def short(value: float) -> str:
    """A number in as few characters as show it."""
    return f"{value:g}".replace("-", "−")


def percent(value: float) -> str:
    """A share in percent."""
    return f"{short(round(100 * value, 6))} %"


def _defined(series: Lines) -> Lines:
    """The method without undefined values: NaN, infinities, and None, which is how JSON has them."""
    return Lines(
        series.label,
        [point for point in series.points if _finite(point)],
        [edge for edge in series.band if _finite(edge)],
        [mark for mark in series.marks if _finite(mark[:2])],
        [ends for ends in series.whiskers if _finite(ends)],
    )


def _finite(values: Iterable[float | None]) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def _pairs(lines: Iterable[Lines]) -> list[Point]:
    pairs: list[Point] = []
    for series in lines:
        pairs += [*series.points, *((px, py) for px, py, _ in series.marks)]
        for px, low, high in (*series.band, *series.whiskers):
            pairs += [(px, low), (px, high)]
    return pairs


def _values(lines: Iterable[Lines], axis: int) -> list[float]:
    return [pair[axis] for pair in _pairs(lines)]


def _span(values: Sequence[float], pad: float) -> tuple[float, float]:
    """The range of values with a margin, at least half a point, so that ticks of nearly equal values stay short."""
    low, high = min(values), max(values)
    margin = max((high - low) * pad, 0.005)
    return low - margin, high + margin


def axis(
    label: str,
    low: float,
    high: float,
    ends: Point,
    write: Callable[[float], str],
    at: Sequence[float] | None = None,
) -> Axis:
    """An axis between two `ends`, with round ticks unless they are given."""
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if at is None else at
    bare = Axis(label, low, high, *ends, ())
    ticks = tuple((bare.at(value), write(round(float(value), 9))) for value in values if low <= value <= high)
    return Axis(label, low, high, *ends, ticks)


def _drawing(series: Lines, colour: int, x: Axis, y: Axis, entry: Point) -> Drawing:
    inside = [(px, py) for px, py in series.points if x.low <= px <= x.high]
    band = [(px, low, high) for px, low, high in series.band if x.low <= px <= x.high]
    around = [(px, high) for px, _, high in band] + [(px, low) for px, low, _ in reversed(band)]
    return Drawing(
        cut(series.label, LONGEST),
        colour,
        _path(inside, x, y),
        _path(around, x, y),
        tuple((x.at(px), y.at(py), words) for px, py, words in series.marks if px <= x.high),
        tuple((x.at(px), y.at(low), y.at(high)) for px, low, high in series.whiskers),
        entry,
    )


def cut(label: str, longest: int) -> str:
    """A label of at most so many characters."""
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    """The points as the commands of an SVG path."""
    return "M" + "L".join(f"{x.at(px):g} {y.at(py):g}" for px, py in points) if points else ""
