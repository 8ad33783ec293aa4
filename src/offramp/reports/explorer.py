"""What the threshold slider of the page moves: every operating point of every model, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.text import one_line
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.curves import Curve
from offramp.reports.charts import Chart, Lines, line_chart, percent
from offramp.reports.contents import ReportSection
from offramp.reports.figures import FAR, mean_curve
from offramp.reports.records import Run
from offramp.reports.style import PALETTE
from offramp.reports.text_table import number

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = "Marks: one exit for every text. Bands: 95 % bootstrap intervals, or the range over several models."


def curve_chart(id: str, metric: str, curves: Mapping[str, Sequence[Curve]], data: str = "") -> Chart | None:
    """Score against cost of every method, with bands where the curves have them; None if all are undefined."""
    methods = []
    for label, group in curves.items():
        costs, scores, low, high = (values.tolist() for values in mean_curve(group))
        band = list(zip(costs, low, high, strict=True))
        marks = []
        for curve in group if len(group) == 1 else ():
            marks = [
                (row["cost"], row["score"], f"{label}, always layer {row['depth']:g}: {number(row['score'])}")
                for row in curve.static.to_pylist()
            ]
        methods.append(Lines(label, list(zip(costs, scores, strict=True)), band, marks))
    name = metric.replace("_", " ").capitalize()
    return line_chart(
        id,
        f"{name} against cost{f' on {data}' if data else ''}",
        methods,
        x="Cost, as a share of the full model's work",
        y=name,
        span=(0.0, FAR),
        write=(percent, percent),
        note=NOTE,
    )


def explorer(
    section: ReportSection, metric: str, curves: Mapping[str, Sequence[Curve]], chart: Chart
) -> dict[str, Any]:
    """The models of a chart with their operating points, in JSON's own types, without NaN.

    Returns:
        `metric` and `models`: each with its `label`, `colour`, exit rule `rule`, `layers` of its exits, position
        `own` of its policy among the points (None without one), the `batch` of its timing (None without one), and
        `points`: threshold, place in the chart (x, y), score, its interval (low, high), cost, mean exit layer, share of
        the texts that leave at each exit, and milliseconds a text.
    """
    models = []
    for position, (label, group) in enumerate(curves.items()):
        run = _evaluation(section, label)
        for count, curve in enumerate(group, start=1):
            name = label if len(group) == 1 else f"{label}, model {count}"
            model = _model(curve, run, chart)
            if model["points"]:
                models.append({"label": one_line(name), "colour": position % len(PALETTE), **model})
    return {"metric": one_line(metric.replace("_", " ")), "models": models}


def _evaluation(section: ReportSection, label: str) -> Run | None:
    """The only evaluation of the model of that name."""
    runs = [run for name, run in section.labelled("curves") if name == label and "scores" not in run.tables]
    return runs[0] if len(runs) == 1 else None


def _model(curve: Curve, run: Run | None, chart: Chart) -> dict[str, Any]:
    import pyarrow.compute as pc

    sweep = curve.sweep.filter(pc.is_finite(curve.sweep["score"]))
    rows, times = sweep.to_pylist(), _milliseconds(sweep, run)
    points = []
    for row, time in zip(rows, times, strict=True):
        bounds = [_number(row[name], 5) for name in ("low", "high")]
        spot = [chart.x.at(row["cost"]), chart.y.at(row["score"])]
        shares = [round(share, 4) for share in row["shares"]]
        spent = [round(row["cost"], 5), round(row["depth"], 3)]
        score = round(row["score"], 5)
        points.append([_number(row["threshold"], 6), *spot, score, *bounds, *spent, shares, time])
    timed = run is not None and any(time is not None for time in times)
    return {
        "rule": one_line(curve.criterion),
        "layers": [int(layer) for layer in curve.static["depth"].to_pylist()],
        "own": _own(curve.criterion, sweep, run),
        "batch": run.get("batch_size") if run is not None and timed else None,
        "points": points,
    }


def _own(criterion: str, sweep: pa.Table, run: Run | None) -> int | None:
    """The point nearest to the policy's threshold; None where each exit has its own, or for another rule."""
    threshold = None if run is None or run.get("criterion") != criterion else run.get("threshold")
    if not isinstance(threshold, int | float) or math.isnan(threshold):
        return None
    return _nearest(sweep, threshold)


def _nearest(sweep: pa.Table, threshold: float) -> int:
    # In halves: the thresholds of an unbounded rule may differ by more than the largest float.
    return int(np.abs(floats(sweep, "threshold") / 2 - threshold / 2).argmin())


def _milliseconds(sweep: pa.Table, run: Run | None) -> list[float | None]:
    """Milliseconds a text at each threshold, interpolated over the cost between the timed ones."""
    costs = floats(sweep, "cost")
    examples = 0 if run is None else min(int(run.get("timed") or 0), int(run.get("examples") or 0))
    if run is None or "timing" not in run.tables or not examples:
        return [None] * len(costs)
    measured = {
        float(costs[_nearest(sweep, row["threshold"])]): 1000 * row["seconds"] / examples
        for row in run.tables["timing"].to_pylist()
        if not math.isnan(row["threshold"])
    }
    if len(measured) < 2:
        return [None] * len(costs)
    at, times = zip(*sorted(measured.items()), strict=True)
    return [round(float(time), 3) for time in np.interp(costs, at, times)]


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)
