"""A quick look at one curve; figures for print are made by `offramp.reports`. Imports matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offramp._core.errors import MissingExtraError
from offramp.evaluation.arrow_tables import floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from offramp.evaluation.curves import Curve


def draw_curve(curve: Curve, ax: Axes | None, label: str) -> Axes:
    """Draw a curve into axes, new ones where none are given: line, band and static points."""
    axes = new_axes() if ax is None else ax
    sweep, static = curve.sweep, curve.static
    costs = floats(sweep, "cost")
    (line,) = axes.plot(costs, floats(sweep, "score"), label=label)
    axes.fill_between(
        costs, floats(sweep, "low"), floats(sweep, "high"), color=line.get_color(), alpha=0.15, lw=0
    )
    axes.plot(floats(static, "cost"), floats(static, "score"), "o", color=line.get_color(), mfc="white")
    axes.set_xlabel("cost (share of the full model's FLOPs)")
    axes.set_ylabel(curve.metric)
    axes.legend()
    return axes


def new_axes() -> Axes:
    """Axes of a new figure, shown by notebooks."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "torch") from error
    return pyplot.subplots(figsize=(6, 4), layout="constrained")[1]
