"""Figures of measured speed: accuracy against latency with every peer, and a stream over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offramp._core.errors import DataError
from offramp.reports.style import GREY, PALETTE, WIDTH, caption, colour, new_figure, shown, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "full": ("the whole model", PALETTE[0], "s"),
    "cut": ("cut to its first layers", PALETTE[4], "D"),
    "earlier": ("earlier designs of early exits", PALETTE[3], "^"),
    "ours": ("ours", PALETTE[2], "o"),
}


def latency_figure(
    rows: Sequence[Mapping[str, Any]], metric: str, title: str = "Score against latency"
) -> Figure:
    """Every peer of a benchmark at one batch size: its score against its milliseconds a request.

    Args:
        rows: of a `bench` table, of one batch size; `DataError` where none has a score.
        metric: of the scores.
        title: above the axes.
    """
    scored = [row for row in rows if row["score"] is not None]
    if not scored:
        raise DataError("expected peers with scores to draw, got none: run the bench on labelled data")
    with styled():
        figure, axes = new_figure(5.0, title)
        for kind, (label, shade, mark) in KINDS.items():
            chosen = [row for row in scored if row["kind"] == kind]
            if not chosen:
                continue
            spots = [(row["mean"], row["score"]) for row in chosen]
            axes.plot(*zip(*spots, strict=True), mark, color=shade, ms=8, ls="", label=label)
        _name(axes, scored)
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
        axes.margins(x=0.12, y=0.16)
        axes.set_xlabel("Mean milliseconds a request (logarithmic)")
        axes.set_ylabel(metric.replace("_", " ").capitalize())
        axes.legend(loc="lower right")
        caption(figure, "All peers in one run, in turns on the same requests.")
    return figure


def _plain_ticks(axis: Any) -> None:
    """Ticks 1, 2, 5, 10, 20 … as numbers: powers of ten would need markup, which is off here."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _name(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Names beside the marks, alternately above and below, to keep neighbours apart."""
    ordered = sorted(rows, key=lambda row: (row["score"], row["mean"]))
    for position, row in enumerate(ordered):
        spot, above = (row["mean"], row["score"]), (0, (7, -13, 17, -23)[position % 4])
        shade = KINDS[row["kind"]][1] if row["kind"] in KINDS else GREY
        style = {"ha": "center", "fontsize": 8, "color": shade}
        axes.annotate(shown(row["peer"]), spot, above, textcoords="offset points", **style)


def stream_figure(rows: Sequence[Mapping[str, Any]], title: str = "A stream over time") -> Figure:
    """Throughput and resident memory, one line per mode, from the rows of a `stream` table; `DataError` for none."""
    if not rows:
        raise DataError("expected a stream to draw, got no rows")
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        for position, mode in enumerate(dict.fromkeys(row["mode"] for row in rows)):
            chosen = [row for row in rows if row["mode"] == mode]
            minutes = [row["seconds"] / 60 for row in chosen]
            speed, memory = ([row[key] for row in chosen] for key in ("throughput", "resident_mib"))
            above.plot(minutes, speed, color=colour(position), label=shown(mode))
            below.plot(minutes, memory, color=colour(position))
        above.set_title(shown(title))
        above.set_ylabel("Texts a second")
        below.set_ylabel("Resident MiB")
        below.set_xlabel("Minutes")
        for axes in (above, below):
            axes.set_ylim(bottom=0)
        above.legend(loc="lower right", ncols=2)
    return figure
