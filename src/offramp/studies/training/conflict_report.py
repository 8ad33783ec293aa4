"""Gradient conflict in a sweep's report: heat maps by moment, and the gap to separate classifiers against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from offramp.evaluation.conflict import conflict_metrics
from offramp.reports.conflict import conflict_figure
from offramp.reports.style import WIDTH, caption, colour, marker, styled
from offramp.reports.text_table import TextTable, interval, number
from offramp.studies.names import slug
from offramp.studies.training.conflict import ConflictStudy
from offramp.studies.training.tables import POINTS, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def conflict_figures(study: ConflictStudy) -> dict[str, Figure]:
    """Heat maps by encoder and method, and scatter plots of conflict and gap."""
    figures: dict[str, Figure] = {}
    for (backbone, method), maps in study.maps.items():
        title = f"Gradient conflict, {name_of(method)}, {backbone}"
        figures[f"conflict-{slug(method)}-{slug(backbone)}"] = conflict_figure(maps, title)
    for (backbone, method), points in study.points.groupby(["backbone", "method"], sort=False):
        figures[f"conflict-gap-{slug(method)}-{slug(backbone)}"] = gap_figure(points, backbone, method)
    return figures


def gap_figure(points: pd.DataFrame, backbone: str, method: str) -> Figure:
    """The lead of the separate classifiers, against how an exit's gradient agrees with the others'.

    Args:
        points: rows of `ConflictStudy.points`, of one encoder and method.
        backbone, method: that they are of.
    """
    from matplotlib.figure import Figure

    layers = sorted(points["exit_layer"].unique())
    with styled():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, points["moment"].nunique(), squeeze=False, sharey=True).ravel()
        for panel, (moment, rows) in zip(panels, points.groupby("moment", sort=False), strict=True):
            for i, layer in enumerate(layers):
                exits = rows[rows["exit_layer"] == layer]
                label = f"layer {layer}" if panel is panels[0] else None
                panel.scatter(
                    exits["cosine"],
                    POINTS * exits["gap"],
                    label=label,
                    color=colour(i),
                    marker=marker(i),
                    s=26,
                    alpha=0.8,
                )
            panel.set_title(moment, fontsize=11, fontweight="normal")
            panel.set_xlabel("Cosine with the other exits", fontsize=10)
        panels[0].set_ylabel(f"Multi-Model − {name_of(method)}, points", fontsize=10)
        figure.legend(loc="outside upper right", ncols=len(layers), fontsize=10)
        figure.suptitle(f"Conflict and gap, {backbone}", x=0.01, ha="left", fontweight="bold", fontsize=13)
        caption(
            figure, "A mark: one exit of one model. Cosine: averaged over the layers that the exit shares."
        )
    return figure


def conflict_tables(study: ConflictStudy) -> dict[str, TextTable]:
    """The conflict at each moment, exit by exit beside the gap, and how the two are related."""
    tables = {
        "conflict": _moments(study),
        "conflict-exits": _exits(study),
        "conflict-relation": _relation(study),
    }
    return {name: table for name, table in tables.items() if table.rows}


def _moments(study: ConflictStudy) -> TextTable:
    rows = tuple(
        (backbone, name_of(method), moment, *map(number, conflict_metrics(conflict).values()))
        for (backbone, method), maps in study.maps.items()
        for moment, conflict in maps.items()
    )
    header = (
        *("encoder", "method", "moment", "cosine of pairs", "negative pairs"),
        *("next | later", "negative next | later"),
    )
    note = (
        "Means over batches, layers, tasks and seeds. Pairs: two exits' gradients in a layer. Next | later: the next "
        "exit's gradient against the sum of all later ones'."
    )
    return TextTable("Gradient conflict", header, rows, note, words=3)


def _exits(study: ConflictStudy) -> TextTable:
    exit = ["backbone", "method", "exit_layer"]
    means = study.points.groupby([*exit, "moment"], sort=False)[["cosine", "gap"]].mean()
    cosines = means["cosine"].unstack("moment", sort=False)
    gaps = means["gap"].groupby(exit, sort=False).last()
    rows = tuple(
        (backbone, name_of(method), str(layer), *(number(c, 2) for c in cells), number(POINTS * gap, 1))
        for ((backbone, method, layer), *cells), gap in zip(cosines.itertuples(), gaps, strict=True)
    )
    header = ("encoder", "method", "exit layer", *cosines.columns, "Multi-Model scores more by")
    note = "Cosine of an exit's gradient with the sum of the others', over the layers it shares; the gap in points."
    return TextTable("Conflict and gap, exit by exit", header, rows, note, words=3)


def _relation(study: ConflictStudy) -> TextTable:
    rows = tuple(
        (
            row.backbone,
            name_of(row.method),
            row.moment,
            str(row.models),
            interval(row.correlation, row.low, row.high, 2, sign=True),
        )
        for row in study.relation.itertuples()
    )
    header = ("encoder", "method", "moment", "models", "rank correlation of cosine and gap")
    note = (
        "Spearman's correlation over exits and models; brackets: 95 % bootstrap intervals over models. Were conflict "
        "what costs the exits their score, it would be negative."
    )
    return TextTable("Does conflict tell the gap?", header, rows, note, words=3)
