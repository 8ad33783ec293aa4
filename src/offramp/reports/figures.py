"""Static figures of README width: curves, exits, histograms, depths, latencies and streams, for matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.curves import Curve
from offramp.evaluation.robustness import Robustness
from offramp.reports.style import (
    ATTACKED,
    CLEAN,
    GREY,
    PALETTE,
    WIDTH,
    add_legend,
    caption,
    colour,
    entry,
    marker,
    metric_label,
    new_figure,
    shown,
    styled,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

FAR = 1.05  # the largest cost drawn: methods are compared up to the full model's
KINDS = {
    "full": ("the whole model", PALETTE[0], "s"),
    "cut": ("cut to its first layers", PALETTE[4], "D"),
    "earlier": ("earlier designs of early exits", PALETTE[3], "^"),
    "text": ("classifiers of words, alone or first", PALETTE[1], "v"),
    "ours": ("ours", PALETTE[2], "o"),
    "point": ("ours, other thresholds", PALETTE[2], "."),
}


def curve_figure(curves: Mapping[str, Sequence[Curve]], title: str = "Score against cost") -> Figure:
    """Speed-accuracy curves of several methods.

    Args:
        curves: by method, one per model (seed). One model: its threshold sweep, with the bootstrap band where
            the curve has one. Several: their mean over costs, with the band from the lowest to the highest.

    Raises:
        DataError: there is no curve.
    """
    if not any(curves.values()):
        raise DataError("expected at least one curve to draw, got none")
    with styled():
        figure, axes = new_figure(4.6, title)
        for position, (label, group) in enumerate(curves.items()):
            costs, middle, low, high = mean_curve(group)
            axes.plot(costs, middle, color=colour(position))
            axes.fill_between(costs, low, high, color=colour(position), alpha=0.13, lw=0)
            hollow: dict[str, Any] = {"color": colour(position), "marker": marker(position), "ms": 7}
            hollow |= {"mfc": "white", "mew": 1.6}
            axes.plot([], [], label=entry(label), **hollow)  # one legend entry for line and mark
            static = [np.stack([floats(c.static, "cost"), floats(c.static, "score")]) for c in group]
            if len({points.shape for points in static}) == 1:
                cost, score = np.mean(static, axis=0)
                axes.plot(cost, score, ls="", zorder=4, **hollow)
        axes.set_xlim(0, FAR)
        axes.set_xlabel("Cost, as a share of the full model's FLOPs")
        axes.set_ylabel(metric_label(next(iter(curves.values()))[0].metric))
        add_legend(axes, loc="lower right")
        caption(figure, " ".join(_notes(curves)))
    return figure


def mean_curve(group: Sequence[Curve]) -> tuple[Floats, Floats, Floats, Floats]:
    """Costs, scores and the ends of the band `(points,)` of one curve, or of the mean of several."""
    sweeps = [curve.sweep for curve in group]
    if len(group) == 1:
        cost, score, low, high = (floats(sweeps[0], name) for name in ("cost", "score", "low", "high"))
        return cost, score, low, high
    reached = [floats(sweep, "cost") for sweep in sweeps]
    costs = np.linspace(max(c.min() for c in reached), min(c.max() for c in reached), 200)
    heights = np.stack(
        [np.interp(costs, c, floats(s, "score")) for c, s in zip(reached, sweeps, strict=True)]
    )
    return costs, heights.mean(axis=0), heights.min(axis=0), heights.max(axis=0)


def _notes(curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    several = sorted({len(group) for group in curves.values() if len(group) > 1})
    single = any(len(g) == 1 and np.isfinite(floats(g[0].sweep, "low")).any() for g in curves.values())
    notes = ["Hollow marks: one exit for every example."]
    if single:
        notes.append("Bands: 95 % bootstrap intervals.")
    if several:
        bands = "Other bands" if single else "Bands"
        notes.append(f"{bands}: range over {'–'.join(map(str, several))} models.")
    for label, group in curves.items():
        costs, scores, *_ = mean_curve(group)
        if costs[-1] > FAR:  # a cascade may cost more than the full model
            notes.append(f"{shown(label)} goes on to {scores[-1]:.3f} at cost {costs[-1]:.2f}.")
    return notes


def exits_figure(scores: Mapping[str, pa.Table], metric: str, title: str = "Every exit by itself") -> Figure:
    """The score of every exit with its interval, methods side by side.

    Marks and whiskers, not bars: bars start at zero, and differences of a point would be invisible.

    `scores` holds, by method, rows with `layer`, `score`, `low`, `high`.
    """
    layers = sorted({layer for rows in scores.values() for layer in rows["layer"].to_pylist()})
    with styled():
        figure, axes = new_figure(4.2, title)
        step = min(0.16, 0.7 / max(len(scores), 1))
        for position, (label, rows) in enumerate(scores.items()):
            shift = (position - (len(scores) - 1) / 2) * step
            at = [layers.index(layer) + shift for layer in rows["layer"].to_pylist()]
            score, low, high = (floats(rows, name) for name in ("score", "low", "high"))
            axes.vlines(at, low, high, color=colour(position), lw=2.2)
            axes.plot(at, score, marker(position), color=colour(position), ms=8, label=entry(label))
        axes.set_xticks(range(len(layers)), [f"layer {layer}" for layer in layers])
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(metric_label(metric))
        add_legend(axes, loc="lower right")
        caption(figure, "Whiskers: 95 % bootstrap intervals.")
    return figure


def histogram_figure(
    shares: Mapping[str, Sequence[float] | Floats],
    exit_layers: Sequence[int],
    title: str = "Where examples leave",
) -> Figure:
    """Shares `(exits,)` of the examples that leave at each exit, for several models, or clean and attacked."""
    width = 0.8 / max(len(shares), 1)
    with styled():
        figure, axes = new_figure(3.6, title)
        for position, (label, values) in enumerate(shares.items()):
            at = np.arange(len(exit_layers)) + (position - (len(shares) - 1) / 2) * width
            bars = axes.bar(
                at, np.asarray(values) * 100, width - 0.02, color=colour(position), label=entry(label)
            )
            axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=10, color=colour(position))
        axes.set_xticks(range(len(exit_layers)), [f"layer {layer}" for layer in exit_layers])
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.12)
        axes.set_ylabel("Examples that leave here, %")
        if len(shares) > 1:
            add_legend(axes, ncols=len(shares), loc="lower right", bbox_to_anchor=(1, 1.0))
    return figure


def depth_figure(
    results: Mapping[str, Robustness], layers: int, title: str = "How deep examples go"
) -> Figure:
    """Mean exit layer before and under each attack, joined by a line; `layers` is the deepest layer."""
    with styled():
        figure, axes = new_figure(1.9 + 0.5 * len(results), title)
        for row, robustness in enumerate(results.values()):
            clean, attacked = robustness.intervals["clean_depth"], robustness.intervals["adversarial_depth"]
            axes.plot([clean.estimate, attacked.estimate], [row, row], color=GREY, lw=1.2, zorder=2)
            # Labels lean away from each other, so that equal depths stay readable.
            lean = 1 if clean.estimate <= attacked.estimate else -1
            sides = ((clean, CLEAN, "o", "clean", -lean), (attacked, ATTACKED, "s", "attacked", lean))
            for side, shade, shape, label, to in sides:
                axes.hlines(row, side.low, side.high, color=shade, lw=5, alpha=0.3)
                legend = label if row == 0 else None
                axes.plot(side.estimate, row, shape, color=shade, ms=8, zorder=4, label=legend)
                style: dict[str, Any] = {"ha": "left" if to > 0 else "right", "fontsize": 10, "color": shade}
                number, spot = f"{side.estimate:.1f}", (side.estimate, row)
                axes.annotate(number, spot, (2 * to, 9), textcoords="offset points", **style)
        axes.set_yticks(range(len(results)), [shown(label) for label in results])
        axes.set_ylim(len(results) - 0.4, -0.6)
        axes.set_xlim(0, layers * 1.02)
        axes.axvline(layers, color=GREY, lw=1, ls=":", zorder=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Mean exit layer")
        add_legend(axes, ncols=2, loc="lower right", bbox_to_anchor=(1, 1.0))
        caption(figure, "Bars: 95 % bootstrap intervals. Dotted: the last layer.")
    return figure


def latency_figure(
    rows: Sequence[Mapping[str, Any]], metric: str, title: str = "Score against latency"
) -> Figure:
    """Every peer of a benchmark at one batch size: its score against its milliseconds a request.

    `rows` are those of a `bench` table; `DataError` where none has a score.
    """
    scored = [row for row in rows if row["score"] is not None]
    if not scored:
        raise DataError("expected peers with scores to draw, got none: run the bench on labelled data")
    with styled():
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        figure, axes = new_figure(5.0, title)
        for kind, (label, shade, mark) in KINDS.items():
            chosen = [row for row in scored if row["kind"] == kind]
            if not chosen:
                continue
            spots = [(row["mean"], row["score"]) for row in chosen]
            axes.plot(*zip(*spots, strict=True), mark, color=shade, ms=8, ls="", label=label)
        if points := [row for row in scored if row["kind"] == "point"]:
            ours = [row for row in scored if row["peer"] == "ours-int8"]
            line = sorted((row["cost"], row["mean"], row["score"]) for row in (*points, *ours))
            axes.plot(*list(zip(*line, strict=True))[1:], color=PALETTE[2], lw=1, zorder=0)
        _name(axes, [row for row in scored if row["kind"] != "point"])
        axes.set_xscale("log")
        # Ticks 1, 2, 5, 10, 20 … as numbers: powers of ten would need markup, which is off here.
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.12, y=0.16)
        axes.set_xlabel("Mean milliseconds a request (logarithmic)")
        axes.set_ylabel(metric_label(metric))
        add_legend(axes, loc="best")
        caption(figure, "All peers in one run, in turns on the same requests.")
    return figure


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
            above.plot(minutes, speed, color=colour(position), label=entry(mode))
            below.plot(minutes, memory, color=colour(position))
        above.set_title(shown(title))
        above.set_ylabel("Texts a second")
        below.set_ylabel("Resident MiB")
        below.set_xlabel("Minutes")
        for axes in (above, below):
            axes.set_ylim(bottom=0)
        add_legend(above, loc="lower right", ncols=2)
    return figure
