"""Gradient conflict in a sweep's report: heat maps by moment, and the gap to separate classifiers against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.evaluation.arrow_tables import floats, rows_where
from offramp.evaluation.conflict import conflict_metrics
from offramp.reports.conflict import conflict_figure
from offramp.reports.style import WIDTH, caption, colour, marker, styled
from offramp.reports.text_table import NOTHING, TextTable, interval, number
from offramp.studies.names import slug
from offramp.studies.training.conflict import ConflictStudy
from offramp.studies.training.tables import POINTS, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def conflict_figures(found: ConflictStudy) -> dict[str, Figure]:
    """Heat maps by encoder and method, and scatter plots of conflict and gap."""
    figures: dict[str, Figure] = {}
    for (backbone, method), maps in found.maps.items():
        title = f"Gradient conflict, {name_of(method)}, {backbone}"
        figures[f"conflict-{slug(method)}-{slug(backbone)}"] = conflict_figure(maps, title)
    for backbone, method in dict.fromkeys(
        zip(found.points["backbone"].to_pylist(), found.points["method"].to_pylist(), strict=True)
    ):
        figures[f"conflict-gap-{slug(method)}-{slug(backbone)}"] = gap_figure(found, backbone, method)
    return figures


def gap_figure(found: ConflictStudy, backbone: str, method: str) -> Figure:
    """What the separate classifiers score more, against how the exit's gradient agrees with the others'."""
    from matplotlib.figure import Figure

    some = rows_where(rows_where(found.points, "backbone", backbone), "method", method)
    moments = list(dict.fromkeys(some["moment"].to_pylist()))
    layers = sorted(set(some["exit_layer"].to_pylist()))
    with styled():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, len(moments), squeeze=False, sharey=True).ravel()
        for panel, moment in zip(panels, moments, strict=True):
            rows = rows_where(some, "moment", moment)
            for place, layer in enumerate(layers):
                mine = rows_where(rows, "exit_layer", layer)
                style: dict[str, Any] = {
                    "color": colour(place),
                    "marker": marker(place),
                    "s": 26,
                    "alpha": 0.8,
                }
                label = f"layer {layer}" if panel is panels[0] else None
                panel.scatter(floats(mine, "cosine"), POINTS * floats(mine, "gap"), label=label, **style)
            panel.set_title(moment, fontsize=11, fontweight="normal")
            panel.set_xlabel("Cosine with the other exits", fontsize=10)
        panels[0].set_ylabel(f"Multi-Model − {name_of(method)}, points", fontsize=10)
        figure.legend(loc="outside upper right", ncols=len(layers), fontsize=10)
        figure.suptitle(f"Conflict and gap, {backbone}", x=0.01, ha="left", fontweight="bold", fontsize=13)
        caption(
            figure, "A mark: one exit of one model. Cosine: averaged over the layers that the exit shares."
        )
    return figure


def conflict_tables(found: ConflictStudy) -> dict[str, TextTable]:
    """How much conflict there is at each moment, exit by exit beside the gap, and how the two go together."""
    tables = {
        "conflict": _moments(found),
        "conflict-exits": _exits(found),
        "conflict-relation": _relation(found),
    }
    return {name: table for name, table in tables.items() if table.rows}


def _moments(found: ConflictStudy) -> TextTable:
    rows = []
    for (backbone, method), maps in found.maps.items():
        for moment, one in maps.items():
            told = conflict_metrics(one)
            rows.append((backbone, name_of(method), moment, *(number(value) for value in told.values())))
    header = (
        *("encoder", "method", "moment", "cosine of pairs", "negative pairs"),
        *("next | later", "negative next | later"),
    )
    note = (
        "Means over batches, layers, tasks and seeds. Pairs: two exits' gradients in a layer. Next | later: the next "
        "exit's gradient against the sum of all later ones'."
    )
    return TextTable("Gradient conflict", header, tuple(rows), note, words=3)


def _exits(found: ConflictStudy) -> TextTable:
    points = found.points.to_pylist()
    groups: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in points:
        key = (row["backbone"], row["method"], row["exit_layer"])
        groups.setdefault((*key, row["moment"]), []).append((row["cosine"], row["gap"]))
    moments = list(dict.fromkeys(row["moment"] for row in points))
    rows = []
    for key in dict.fromkeys(group[:3] for group in groups):
        measured = {m: groups[(*key, m)] for m in moments if (*key, m) in groups}
        cosines = {m: float(np.mean([pair[0] for pair in pairs])) for m, pairs in measured.items()}
        cells = (number(cosines[m], 2) if m in cosines else NOTHING for m in moments)
        gap = float(np.mean([pair[1] for pair in measured[list(measured)[-1]]]))
        rows.append((key[0], name_of(key[1]), str(key[2]), *cells, number(POINTS * gap, 1)))
    header = ("encoder", "method", "exit layer", *moments, "Multi-Model scores more by")
    note = "Cosine of an exit's gradient with the sum of the others', over the layers it shares; the gap in points."
    return TextTable("Conflict and gap, exit by exit", header, tuple(rows), note, words=3)


def _relation(found: ConflictStudy) -> TextTable:
    rows = tuple(
        (
            row["backbone"],
            name_of(row["method"]),
            row["moment"],
            str(row["models"]),
            interval(row["correlation"], row["low"], row["high"], 2, sign=True),
        )
        for row in found.relation.to_pylist()
    )
    header = ("encoder", "method", "moment", "models", "rank correlation of cosine and gap")
    note = (
        "Spearman's correlation over exits and models; brackets: 95 % bootstrap intervals over models. Were conflict "
        "what costs the exits their score, it would be negative."
    )
    return TextTable("Does conflict tell the gap?", header, rows, note, words=3)
