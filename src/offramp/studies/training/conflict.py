"""Gradient conflict in the records of a sweep, and how it relates to what the separate classifiers gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp._core import progress as display
from offramp._core.seeding import generator
from offramp._core.text import slug
from offramp.evaluation.bootstrap import percentile_band
from offramp.evaluation.conflict import Conflict, conflict, conflict_metrics, exit_agreement, owner_shares
from offramp.reports.conflict import conflict_figure, owners_figure
from offramp.reports.style import colour, marker, shown
from offramp.reports.text_table import TextTable, interval, number
from offramp.studies.panels import multiples
from offramp.studies.training.results import Result
from offramp.studies.training.tables import POINTS, name_of
from offramp.training.strategies import STRATEGIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP = ["backbone", "method", "moment"]
MODEL = ["task", "train_size", "seed"]
EXITS = (*GROUP, *MODEL, "exit_layer", "cosine", "gap")
RELATION = (*GROUP, "correlation", "low", "high", "models")


@dataclass(frozen=True)
class ConflictStudy:
    """Conflict over the models of a sweep.

    Attributes:
        maps: by encoder and method, then by moment (such as "50 % of training"): over all tasks, seeds and batches.
        points: a row per exit, model and moment: cosine of the exit's gradient with the sum of the others', averaged
            over the layers it shares, and how much more the separate classifier of the same task and seed scores;
            columns `EXITS`.
        relation: Spearman's correlation of the two over exits and models, intervals over models: columns `RELATION`.
    """

    maps: dict[tuple[str, str], dict[str, Conflict]]
    points: pd.DataFrame
    relation: pd.DataFrame


def conflict_study(
    results: Sequence[Result], *, resamples: int = 1000, progress: bool = False
) -> ConflictStudy:
    """The gradient conflict in the trials of a sweep; empty where it was not measured.

    Args:
        results: one per encoder, task, size, method and seed, such as `MethodStudy.compared`.
        resamples: of the models, for intervals.
        progress: show a progress bar.
    """
    measured = pd.DataFrame(_measured(results), columns=[*GROUP, "result", "products"])
    alone = [name for name, strategy in STRATEGIES.items() if strategy.trains_alone]
    separate = {result.model: np.array(result.scores) for result in results if result.strategy in alone}
    maps: dict[tuple[str, str], dict[str, Conflict]] = {}
    rows: list[tuple[object, ...]] = []
    for (backbone, method, moment), group in measured.groupby(GROUP, sort=False):
        layers = group["result"].iloc[0].trace.exit_layers
        maps.setdefault((backbone, method), {})[moment] = conflict(
            np.concatenate(group["products"].tolist()), layers
        )
        for result, products in zip(group["result"], group["products"], strict=True):
            if result.model in separate:
                cosines = exit_agreement(products, result.trace.exit_layers)
                gaps = separate[result.model] - np.array(result.scores)
                model = (result.setting.task, result.setting.train_size, result.seed)
                exits = zip(result.trace.exit_layers, cosines, gaps, strict=True)
                rows += [(backbone, method, moment, *model, *exit) for exit in exits]
    points = pd.DataFrame(rows, columns=list(EXITS)).astype({"train_size": "Int64"})
    return ConflictStudy(maps, points, _relation(points, resamples, show=progress))


def _measured(results: Sequence[Result]) -> Iterator[tuple[object, ...]]:
    """Encoder, method, moment, result and products of every moment at which exits share a gradient."""
    for result in results:
        for step, products in result.gradients.items():
            if np.triu(products, k=1).any():  # the exits of `sweet` share none
                moment = _moment(step, list(result.gradients), result.conflict)
                yield result.setting.backbone, result.method, moment, result, products


def _moment(step: int, steps: Sequence[int], shares: Sequence[float]) -> str:
    """The requested share of the training that a step stands for: shares were rounded to whole steps."""
    total = max(*steps, 1) / (max(shares, default=0) or 1)
    share = min(shares, key=lambda share: abs(share - step / total), default=step / total)
    return f"{share:.0%} of training".replace("%", " %")


def _relation(points: pd.DataFrame, resamples: int, *, show: bool) -> pd.DataFrame:
    """Correlation by encoder, method and moment; models are drawn with replacement, with all their exits."""
    rows = []
    for key, group in display.track(
        [*points.groupby(GROUP, sort=False)], "relate conflict and gap", show=show
    ):
        models = [
            exits[["cosine", "gap"]].to_numpy() for _, exits in group.groupby(MODEL, sort=False, dropna=False)
        ]
        random = generator(0, "conflict", *key)
        drawn = [
            _spearman(np.concatenate([models[i] for i in random.integers(len(models), size=len(models))]))
            for _ in range(resamples)
        ]
        low, high = percentile_band(np.array(drawn)[:, None])
        correlation = _spearman(group[["cosine", "gap"]].to_numpy())
        rows.append((*key, correlation, low[0], high[0], len(models)))
    return pd.DataFrame(rows, columns=list(RELATION))


def _spearman(pairs: NDArray[np.float64]) -> float:
    """Rank correlation of two columns; NaN if one of them is constant."""
    from scipy.stats import spearmanr

    kept = pairs[np.isfinite(pairs).all(axis=1)]
    if len(kept) < 3 or (np.ptp(kept, axis=0) == 0).any():
        return float("nan")
    return float(spearmanr(kept[:, 0], kept[:, 1]).statistic)


def conflict_figures(study: ConflictStudy) -> dict[str, Figure]:
    """Heat maps by encoder and method, and scatter plots of conflict and gap."""
    figures: dict[str, Figure] = {}
    for (backbone, method), maps in study.maps.items():
        title = f"Gradient conflict, {name_of(method)}, {backbone}"
        figures[f"conflict-{slug(method)}-{slug(backbone)}"] = conflict_figure(maps, title)
        title = f"Who owns a layer's update, {name_of(method)}, {backbone}"
        figures[f"owners-{slug(method)}-{slug(backbone)}"] = owners_figure(maps, title)
    for (backbone, method), points in study.points.groupby(["backbone", "method"], sort=False):
        figures[f"conflict-gap-{slug(method)}-{slug(backbone)}"] = _gap_figure(points, backbone, method)
    return figures


def _gap_figure(points: pd.DataFrame, backbone: str, method: str) -> Figure:
    """The lead of the separate classifiers, against how an exit's gradient agrees with the others'."""
    layers = sorted(points["exit_layer"].unique())
    shapes: list[dict[str, Any]] = [
        {"color": colour(i), "marker": marker(i), "alpha": 0.8} for i in range(len(layers))
    ]
    marks = {f"layer {layer}": {"ls": "", "ms": 5, **s} for layer, s in zip(layers, shapes, strict=True)}

    def draw(rows: pd.DataFrame, panel: Axes) -> None:
        for layer, shape in zip(layers, shapes, strict=True):
            exits = rows[rows["exit_layer"] == layer]
            panel.scatter(exits["cosine"], POINTS * exits["gap"], s=26, **shape)
        panel.set_xlabel("Cosine with the other exits", fontsize=10)

    figure = multiples(
        [(moment, partial(draw, rows)) for moment, rows in points.groupby("moment", sort=False)],
        f"Conflict and gap, {backbone}",
        "A mark: one exit of one model. Cosine: averaged over the layers that the exit shares.",
        marks,
        height=2.6,
        columns=points["moment"].nunique(),
        sharey=True,
    )
    figure.axes[0].set_ylabel(shown(f"Multi-Model − {name_of(method)}, points"), fontsize=10)
    return figure


def conflict_tables(study: ConflictStudy) -> dict[str, TextTable]:
    """The conflict at each moment, exit by exit beside the gap, and how the two are related."""
    tables = {
        "conflict": _moments_table(study),
        "owners": _owners_table(study),
        "conflict-exits": _exits_table(study),
        "conflict-relation": _relation_table(study),
    }
    return {name: table for name, table in tables.items() if table.rows}


def _moments_table(study: ConflictStudy) -> TextTable:
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


def _owners_table(study: ConflictStudy) -> TextTable:
    """Who owns a layer's update: in layer 1, where all exits meet, and over all layers that an exit shares."""
    rows = []
    for (backbone, method), maps in study.maps.items():
        for moment, measured in maps.items():
            over_layers, first = owner_shares(measured).values(), measured.owners
            values = np.array([first.norm[0], first.norm_share[0], first.projection_share[0], *over_layers])
            for layer, cells in zip(measured.exit_layers, values.T.tolist(), strict=True):
                numbers = (number(cells[0], 3), *(number(cell, 2) for cell in cells[1:]))
                rows.append((backbone, name_of(method), moment, str(layer), *numbers))
    header = (
        *("encoder", "method", "moment", "exit layer", "norm in layer 1", "share of the norms"),
        *("share of the sum", "share of the norms, all layers", "share of the sum, all layers"),
    )
    note = (
        "Means over batches, tasks and seeds, of the gradients as they are before a strategy or an optimizer changes "
        "them. Share of the norms: of the exits' gradient norms in a layer. Share of the sum: what the exit adds to "
        "the summed gradient along it. All layers: those that the exit shares with others."
    )
    return TextTable("Who owns a layer's update", header, tuple(rows), note, words=4)


def _exits_table(study: ConflictStudy) -> TextTable:
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


def _relation_table(study: ConflictStudy) -> TextTable:
    rows = []
    for row in study.relation.itertuples():
        correlation = interval(row.correlation, row.low, row.high, 2, sign=True)
        rows.append((row.backbone, name_of(row.method), row.moment, str(row.models), correlation))
    header = ("encoder", "method", "moment", "models", "rank correlation of cosine and gap")
    note = (
        "Spearman's correlation over exits and models; brackets: 95 % bootstrap intervals over models. Were conflict "
        "what costs the exits their score, it would be negative."
    )
    return TextTable("Does conflict tell the gap?", header, tuple(rows), note, words=3)
