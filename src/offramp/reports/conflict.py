"""Gradient conflict as a heat map, and who owns the update of a layer as bars: one panel per training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.errors import DataError
from offramp.evaluation.conflict import Conflict
from offramp.reports.style import ATTACKED, CLEAN, GRID, INK, caption, colour, new_panels, shown, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 3  # side by side
EXPLAINED = (
    "Mean cosine of two exits' gradients in a layer; last column: the next exit against the sum of all later "
    "ones.\nGrey: one of the two lies below the layer. Dots: negative in at least half of the batches."
)

OWNED = "Share of each exit in the sum of the exits' gradient norms, mean over batches."


def conflict_figure(
    conflicts: Mapping[int, Conflict] | Mapping[str, Conflict], title: str = "Gradient conflict"
) -> Figure:
    """Cosines between the exits' gradients by layer, a panel for each conflict, by training step or by name.

    Raises:
        DataError: there is no conflict, or a model has one exit.
    """
    _require_exits(conflicts)
    with styled():
        figure, panels = _layer_panels(conflicts, title)
        alone = len(conflicts) == 1
        for position, (panel, (step, conflict)) in enumerate(zip(panels, conflicts.items(), strict=False)):
            name = _panel_name(step, len(conflicts))
            image = _draw(panel, conflict, name, first=position % PANELS == 0, alone=alone)
        figure.colorbar(image, ax=panels, shrink=0.8, label="cosine")
        caption(figure, EXPLAINED)
    return figure


def owners_figure(
    conflicts: Mapping[int, Conflict] | Mapping[str, Conflict], title: str = "Who owns a layer's update"
) -> Figure:
    """Each exit's share of the gradients' norms by layer, a panel for each conflict; arguments as `conflict_figure`.

    Raises:
        DataError: there is no conflict, or a model has one exit.
    """
    _require_exits(conflicts)
    with styled():
        figure, panels = _layer_panels(conflicts, title)
        for position, (panel, (step, conflict)) in enumerate(zip(panels, conflicts.items(), strict=False)):
            _draw_owners(panel, conflict, _panel_name(step, len(conflicts)), first=position % PANELS == 0)
        exits = max((c.exit_layers for c in conflicts.values()), key=len)
        from matplotlib.patches import Patch

        handles = [Patch(color=colour(i), label=f"exit {layer}") for i, layer in enumerate(exits)]
        figure.legend(handles=handles, loc="outside right upper", fontsize=9)
        caption(figure, OWNED)
    return figure


def _layer_panels(
    conflicts: Mapping[int, Conflict] | Mapping[str, Conflict], title: str
) -> tuple[Figure, list[Axes]]:
    """A panel for each conflict, as high as the layers below the last but one exit: above, no two exits meet."""
    layers = max(conflict.exit_layers[-2] for conflict in conflicts.values())
    return new_panels(len(conflicts), min(PANELS, len(conflicts)), (1.4 + 0.3 * layers, 0.6), title)


def _draw_owners(panel: Axes, conflict: Conflict, name: str, *, first: bool) -> None:
    shared = conflict.exit_layers[-2]
    shares = np.nan_to_num(conflict.owners.norm_share[:shared])
    rows, left = np.arange(1, shared + 1), np.zeros(shared)
    for exit in range(len(conflict.exit_layers)):
        panel.barh(rows, shares[:, exit], left=left, color=colour(exit), height=0.8)
        left = left + shares[:, exit]
    panel.set_xlim(0, 1)
    panel.set_yticks(rows, [str(layer) for layer in rows])
    panel.grid(visible=False, axis="y")
    panel.set_title(name, fontsize=11)
    if first:
        panel.set_ylabel("Layer")


def _require_exits(conflicts: Mapping[int, Conflict] | Mapping[str, Conflict]) -> None:
    if not conflicts or any(len(conflict.exit_layers) < 2 for conflict in conflicts.values()):
        raise DataError("expected conflict between at least two exits to draw, got none")


def _panel_name(step: object, panels: int) -> str:
    return step if isinstance(step, str) else "" if panels == 1 else f"step {step}"


def _draw(panel: Axes, conflict: Conflict, name: str, *, first: bool, alone: bool) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("conflict", [ATTACKED, "white", CLEAN]).with_extremes(bad=GRID)
    shared = conflict.exit_layers[-2]  # the last layer that two exits share
    columns, cosines, negative = conflict.columns()
    cosines, negative = cosines[:shared], negative[:shared]
    image = panel.imshow(cosines, cmap=shades, vmin=-1, vmax=1, aspect="auto", origin="lower")
    for row, column in np.argwhere(np.isfinite(cosines)).tolist():
        value = cosines[row, column]
        mark = "·" if negative[row, column] >= 0.5 else ""
        ink = "white" if abs(value) > 0.75 else INK
        # Two decimals without the leading zero, for which three panels have no room.
        digits = f"{abs(value):.2f}".removeprefix("0")
        label = ("−" if value < 0 and digits != ".00" else "") + digits + mark
        panel.text(column, row, label, ha="center", va="center", fontsize=8, color=ink)
    panel.set_xticks(range(len(columns)), columns, rotation=0 if alone else 90, fontsize=9)
    panel.set_yticks(range(len(cosines)), [str(layer + 1) for layer in range(len(cosines))])
    panel.axvline(len(columns) - 1.5, color=INK, lw=1)
    panel.grid(visible=False)
    panel.set_title(shown(name), fontsize=11)
    if first:
        panel.set_ylabel("Layer")
    return image
