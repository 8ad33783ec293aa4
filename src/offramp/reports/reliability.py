"""Reliability diagrams and calibration errors, before and after temperatures, and the ranking by confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from offramp.evaluation.arrow_tables import floats, rows_where, stack, to_pandas
from offramp.evaluation.operating_points import RELIABILITY, SIDES
from offramp.reports.style import ATTACKED, CLEAN, GREY, caption, new_panels, styled
from offramp.reports.text_table import NOTHING, TextTable, interval, number

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from offramp.evaluation.bootstrap import Interval

PANELS = 4  # side by side
SHADES = dict(zip(SIDES, (ATTACKED, CLEAN), strict=True))
EXPLAINED = "Accuracy against mean confidence in 15 bins; larger marks hold more examples. Dashed: perfect."


def pool_reliability(tables: Sequence[pa.Table]) -> pa.Table:
    """One table for several models or tasks with the same bins: counts are added, means weighted by them."""
    import pyarrow as pa

    rows = to_pandas(stack(tables))
    for name in ("confidence", "accuracy"):
        rows[name] *= rows["count"]
    pooled = rows.groupby(["layer", "side", "low", "high"], as_index=False).sum()
    for name in ("confidence", "accuracy"):
        pooled[name] /= pooled["count"]
    return pa.Table.from_pandas(pooled[list(RELIABILITY)], preserve_index=False)


def calibration_errors(table: pa.Table) -> dict[tuple[int, str], float]:
    """Expected calibration error by exit layer and side, from the rows of `evaluation.reliability_table`."""
    rows = to_pandas(table)
    rows["gap"] = (rows["confidence"] - rows["accuracy"]).abs() * rows["count"]
    sums = rows.groupby(["layer", "side"], sort=False)[["gap", "count"]].sum()
    return {(int(layer), str(side)): gap / count for (layer, side), gap, count in sums.itertuples(name=None)}


def reliability_figure(table: pa.Table, title: str = "Reliability of every exit") -> Figure:
    """A reliability diagram for each exit, before and after its temperature, of rows of `reliability_table`."""
    errors = calibration_errors(table)
    layers = sorted({layer for layer, _ in errors})
    with styled():
        columns = min(PANELS, len(layers))
        figure, panels = new_panels(len(layers), columns, (2.4, 1.0), title, sharex=True)
        for panel, layer in zip(panels, layers, strict=False):
            _draw(panel, rows_where(table, "layer", layer), layer, errors)
        for panel in panels[::columns]:
            panel.set_ylabel("Accuracy", fontsize=10)
        for panel in panels[-columns:]:
            panel.set_xlabel("Confidence", fontsize=10)
        caption(figure, EXPLAINED)
    return figure


def _draw(panel: Axes, table: pa.Table, layer: int, errors: Mapping[tuple[int, str], float]) -> None:
    panel.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    lines = []
    for side, shade in SHADES.items():
        rows = rows_where(table, "side", side)
        if not rows.num_rows:
            continue
        count = floats(rows, "count")
        sure, right = floats(rows, "confidence"), floats(rows, "accuracy")
        panel.plot(sure, right, color=shade, lw=1.2)
        panel.scatter(sure, right, s=3 + 60 * count / count.sum(), color=shade, zorder=3)
        lines.append((f"{side} {errors[layer, side]:.3f}", shade))
    for i, (words, shade) in enumerate(reversed(lines)):
        corner = (0.97, 0.03 + 0.1 * i)
        panel.annotate(words, corner, xycoords="axes fraction", ha="right", fontsize=9, color=shade)
    panel.set_title(f"layer {layer}, ECE", fontsize=11, fontweight="normal")
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)


def calibration_table(tables: Mapping[tuple[str, ...], pa.Table], header: tuple[str, ...]) -> TextTable:
    """Expected calibration error of every exit, before → after its temperature.

    `tables` holds rows of `reliability_table` by the cells that begin the row; `header` names those cells.
    """
    by_key = {key: calibration_errors(table) for key, table in tables.items()}
    layers = sorted({layer for errors in by_key.values() for layer, _ in errors})
    rows = []
    for key, errors in by_key.items():
        sides = [
            [number(errors[layer, side]) for side in SIDES if (layer, side) in errors] for layer in layers
        ]
        rows.append((*key, *(" → ".join(cells) or NOTHING for cells in sides)))
    note = "Expected calibration error, 15 bins, before → after the exit's temperature, which was fitted on other data."
    columns = (*header, *(f"layer {layer}" for layer in layers))
    return TextTable("Calibration of the exits", columns, tuple(rows), note, words=len(header))


def ranking_table(
    measured: Mapping[tuple[str, ...], Sequence[Interval]], header: tuple[str, ...]
) -> TextTable:
    """How well the confidence of every exit ranks right answers above wrong ones.

    `measured` holds intervals of `evaluation.operating_points.ranking_statistic`, one per exit, by the cells that begin
    the row; `header` names those cells.
    """
    cells = {
        key: {exit.name: interval(exit.estimate, exit.low, exit.high) for exit in exits}
        for key, exits in measured.items()
    }
    names = {name for exits in cells.values() for name in exits}
    layers = sorted(names, key=lambda name: int(name.removeprefix("layer ")))
    rows = tuple((*key, *(exits.get(layer, NOTHING) for layer in layers)) for key, exits in cells.items())
    note = (
        "AUROC of the largest probability for the question whether the exit is right: .5 is chance. No threshold can "
        "gain from confidence that does not rank, however well it is calibrated. Brackets: 95 % bootstrap intervals."
    )
    return TextTable("Ranking by confidence", (*header, *layers), rows, note, words=len(header))
