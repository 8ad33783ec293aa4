"""Interactive curves: plotly figures as plain data, and plotly's script that draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from offramp._core.errors import MissingExtraError
from offramp._core.text import visible
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.curves import Curve
from offramp.reports.figures import mean_curve
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
    """Speed-accuracy curves as a plotly figure.

    Args:
        curves: by method, one per model.
        metric: of the scores.

    Returns:
        The figure in JSON's own types, without NaN.
    """
    traces: list[dict[str, Any]] = []
    for position, (label, group) in enumerate(curves.items()):
        traces += [
            *_band(label, group, position),
            _sweep(label, group, position),
            _static(label, group, position),
        ]
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GREY, "showline": True}
    layout = {
        "xaxis": {
            **axis,
            "title": {"text": "Cost, as a share of the full model's FLOPs"},
            "range": [0, 1.05],
        },
        "yaxis": {**axis, "title": {"text": _escaped(metric.replace("_", " "))}},
        "font": {"family": "system-ui, sans-serif", "size": 14, "color": INK},
        "legend": {"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"},
        "margin": {"t": 10, "r": 10, "b": 60, "l": 70},
        "hovermode": "closest",
        "plot_bgcolor": "white",
    }
    return {"data": traces, "layout": layout}


def _band(label: str, group: Sequence[Curve], position: int) -> list[dict[str, Any]]:
    """The band between its two ends, without hover text; empty where it is undefined."""
    costs, _, low, high = mean_curve(group)
    if not np.isfinite(low).all():
        return []
    silent = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    ends = [_trace(label, costs, end, []) | silent for end in (low, high)]
    red, green, blue = (int(colour(position)[i : i + 2], 16) for i in (1, 3, 5))
    ends[1] |= {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.13)"}
    return ends


def _sweep(label: str, group: Sequence[Curve], position: int) -> dict[str, Any]:
    costs, scores, low, high = mean_curve(group)
    if len(group) == 1:
        rows = group[0].sweep.to_pylist()
        hover = [f"threshold {row['threshold']:.4g}<br>depth {row['depth']:.2f}" for row in rows]
    else:
        hover = [f"mean of {len(group)} models"] * len(costs)
    ends = zip(low, high, strict=True)
    hover = [
        t + ("" if math.isnan(lo) else f"<br>band {lo:.4f}–{hi:.4f}")
        for t, (lo, hi) in zip(hover, ends, strict=True)
    ]
    line = {"color": colour(position), "width": 2.5}
    return _trace(label, costs, scores, hover) | {"mode": "lines", "line": line}


def _static(label: str, group: Sequence[Curve], position: int) -> dict[str, Any]:
    points = [
        (cost, score, f"always layer {depth:g}")
        for curve in group
        for cost, score, depth in zip(
            *(floats(curve.static, n) for n in ("cost", "score", "depth")), strict=True
        )
    ]
    costs, scores, hover = (list(column) for column in zip(*points, strict=True)) if points else ([], [], [])
    shape = SYMBOLS[position % len(SYMBOLS)]
    mark = {"symbol": shape, "color": "white", "size": 9, "line": {"color": colour(position), "width": 2}}
    return _trace(label, costs, scores, hover) | {"mode": "markers", "marker": mark, "showlegend": False}


def _trace(label: str, costs: Any, scores: Any, hover: list[str]) -> dict[str, Any]:
    shared = {
        "type": "scatter",
        "name": _escaped(label),
        "legendgroup": _escaped(label),
        "hovertemplate": HOVER,
    }
    xs, ys = ([round(float(v), 6) for v in values] for values in (costs, scores))
    return shared | {"x": xs, "y": ys, "customdata": hover}


def _escaped(label: str) -> str:
    """A name for plotly, which reads tags in names."""
    return escape(visible(label))
