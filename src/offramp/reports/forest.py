"""Estimates with intervals in rows: a chart for names too long to stand side by side. Geometry only, as `charts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from offramp.reports.charts import LONGEST, RIGHT, WIDTH, Axis, Point, axis, cut, legend, short
from offramp.reports.style import PALETTE

LABELS = 138.0  # width of the names of rows
MOST_CHARACTERS = 18  # of a name
APART, MARGIN = 13.0, 14.0  # between two methods of a row; between rows
BEYOND = 0.35  # an interval may reach so far beyond all estimates, as a share of their range; the rest is cut


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether both ends of the interval are defined."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class ForestDrawing:
    """The shapes of one method: marks `(x, y, words)` and whiskers `(low, high, y)`; `claim` is a dashed line."""

    label: str
    colour: int
    marks: tuple[tuple[float, float, str], ...]
    whiskers: tuple[tuple[float, float, float], ...]
    claim: float | None
    entry: Point


@dataclass(frozen=True)
class Forest:
    """A chart to draw; `rows` are names with their heights, `lines` and `dashed` the places of vertical lines."""

    id: str
    title: str
    note: str
    x: Axis
    top: float
    bottom: float
    height: float
    rows: tuple[tuple[float, str], ...]
    lines: tuple[float, ...]
    dashed: tuple[float, ...]
    drawings: tuple[ForestDrawing, ...]
    width: float = WIDTH


def forest_chart(
    id: str,
    title: str,
    methods: Mapping[str, Mapping[str, Estimate]],
    *,
    x: str,
    say: Callable[[Estimate], str],
    write: Callable[[float], str] = short,
    lines: Sequence[float] = (0.0,),
    dashed: Sequence[float] = (),
    claims: Mapping[str, float] | None = None,
    note: str = "",
) -> Forest | None:
    """Place estimates in rows; None where none is defined.

    Args:
        id: of the element, unique on the page.
        title: what the chart shows.
        methods: the estimates of each method, by the name of the row.
        x: label of the axis.
        say: an estimate in words, for those who point at it.
        write: how ticks are written.
        lines, dashed: values at which a vertical line is drawn.
        claims: values at which a dashed line is drawn in the colour of a method.
        note: how to read it.
    """
    claims = claims or {}
    names = list(dict.fromkeys(name for rows in methods.values() for name in rows))
    entries, top = legend(list(methods))
    each = APART * len(methods) + MARGIN
    first, bottom = top + 8, top + 8 + each * len(names)
    estimates = [estimate for rows in methods.values() for estimate in rows.values()]
    span = _span(estimates, [*lines, *dashed, *claims.values()])
    if span is None:
        return None
    across = axis(x, *span, (LABELS, WIDTH - RIGHT), write)
    middles = {name: first + each * (row + 0.5) for row, name in enumerate(names)}
    drawings = []
    for i, (method, rows) in enumerate(methods.items()):
        down = APART * (i - (len(methods) - 1) / 2)
        shown = [
            (name, middles[name] + down, estimate)
            for name, estimate in rows.items()
            if math.isfinite(estimate.value)
        ]
        drawings.append(
            ForestDrawing(
                cut(method, LONGEST),
                i % len(PALETTE),
                tuple((across.at(e.value), y, f"{method}, {name}: {say(e)}") for name, y, e in shown),
                tuple((across.at(e.low), across.at(e.high), y) for _, y, e in shown if e.bounded),
                across.at(claims[method]) if method in claims else None,
                entries[i],
            )
        )
    labels = tuple((height, cut(name, MOST_CHARACTERS)) for name, height in middles.items())
    solid, broken = (tuple(map(across.at, values)) for values in (lines, dashed))
    return Forest(id, title, note, across, top, bottom, bottom + 46, labels, solid, broken, tuple(drawings))


def _span(estimates: Sequence[Estimate], lines: Sequence[float]) -> tuple[float, float] | None:
    """The range of x: all estimates and lines, and their intervals up to `BEYOND`."""
    shown = [e for e in estimates if math.isfinite(e.value)]
    if not shown:
        return None
    values = [*(e.value for e in shown), *lines]
    ends = [end for e in shown for end in (e.low, e.high) if math.isfinite(end)] or values
    reach = BEYOND * max(max(values) - min(values), 0.01)
    low = min(min(values), max(min(ends), min(values) - reach))
    high = max(max(values), min(max(ends), max(values) + reach))
    pad = 0.04 * (high - low) + 1e-3
    return low - pad, high + pad
