"""Interactive curves: plotly figures as plain data, and plotly's script that draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from offramp._core.errors import MissingExtraError
from offramp._core.text import one_line
from offramp.evaluation.curves import Curve
from offramp.reports.figures import FAR, mean_curve
from offramp.reports.style import GREY, GRID, INK, colour

HOVER = "cost %{x:.3f}<br>score %{y:.4f}<br>%{customdata}<extra>%{fullData.name}</extra>"
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")  # as style.MARKERS
DRAW = """
for (const box of document.querySelectorAll("[data-figure]")) {
  const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
  Plotly.newPlot(box, figure.data, figure.layout, {
    displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });
}
"""


def plotly_script() -> str:
    """Plotly's own JavaScript, for a page that opens offline."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise MissingExtraError("plotly", "torch") from error
    return str(get_plotlyjs())


def curve_plot(curves: Mapping[str, Sequence[Curve]], metric: str) -> dict[str, Any]:
    """Speed-accuracy curves (by method, one per model) as a plotly figure, in JSON's own types, without NaN."""
    traces: list[dict[str, Any]] = []
    for position, (label, group) in enumerate(curves.items()):
        traces += _sweep(label, group, position)
        points = [row for curve in group for row in curve.static.to_pylist()]
        costs, scores = ([row[name] for row in points] for name in ("cost", "score"))
        hover = [f"always layer {row['depth']:g}" for row in points]
        line = {"color": colour(position), "width": 2}
        mark = {"symbol": SYMBOLS[position % len(SYMBOLS)], "color": "white", "size": 9, "line": line}
        single = {"mode": "markers", "marker": mark, "showlegend": False}
        traces.append(_trace(label, costs, scores, hover) | single)
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GREY, "showline": True}
    layout = {
        "xaxis": axis | {"title": {"text": "Cost, as a share of the full model's FLOPs"}, "range": [0, FAR]},
        "yaxis": axis | {"title": {"text": literal(metric.replace("_", " "))}},
        "font": {"family": "system-ui, sans-serif", "size": 14, "color": INK},
        "legend": {"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"},
        "margin": {"t": 10, "r": 10, "b": 60, "l": 70},
        "hovermode": "closest",
        "hoverlabel": {"namelength": -1},  # in full
        "plot_bgcolor": "white",
    }
    return {"data": traces, "layout": layout}


def _sweep(label: str, group: Sequence[Curve], position: int) -> list[dict[str, Any]]:
    """The line of a curve, behind the two ends of its band, which have no hover text, where it has a band."""
    costs, scores, low, high = mean_curve(group)
    if len(group) == 1:
        rows = group[0].sweep.to_pylist()
        hover = [f"threshold {row['threshold']:.4g}<br>depth {row['depth']:.2f}" for row in rows]
    else:
        hover = [f"mean of {len(group)} models"] * len(costs)
    for i, (lowest, highest) in enumerate(zip(low, high, strict=True)):
        hover[i] += "" if math.isnan(lowest) else f"<br>band {lowest:.4f}–{highest:.4f}"
    line = {"mode": "lines", "line": {"color": colour(position), "width": 2.5}}
    middle = _trace(label, costs, scores, hover) | line
    if not np.isfinite(low).all():
        return [middle]
    silent = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    ends = [_trace(label, costs, end, []) | silent for end in (low, high)]
    red, green, blue = (int(colour(position)[i : i + 2], 16) for i in (1, 3, 5))
    ends[1] |= {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.13)"}
    return [*ends, middle]


def _trace(label: str, costs: Any, scores: Any, hover: list[str]) -> dict[str, Any]:
    name = literal(label)
    shared = {"type": "scatter", "name": name, "legendgroup": name, "hovertemplate": HOVER}
    xs, ys = ([round(float(v), 6) for v in values] for values in (costs, scores))
    return shared | {"x": xs, "y": ys, "customdata": hover}


def literal(text: str) -> str:
    """Text for plotly, which reads tags and entities; of the entities it knows neither quotation mark."""
    return escape(one_line(text), quote=False)
