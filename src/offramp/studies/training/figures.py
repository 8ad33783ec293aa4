"""The figures of a sweep's report: small multiples by task, and differences beside the paper's claims."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from offramp._core.text import slug
from offramp.evaluation.arrow_tables import floats
from offramp.reports.figures import FAR, mean_curve
from offramp.reports.style import GREY, MARKERS, caption, colour, marker
from offramp.studies.panels import MARK, Marks, legend, multiples, rows_downwards, single
from offramp.studies.training.results import ModelSetting
from offramp.studies.training.study import MethodStudy
from offramp.studies.training.tables import POINTS, name_of, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 4  # methods beyond which bands would hide each other
BESIDE = 3  # methods whose legend fits beside the title
NESTED = "95 % bootstrap intervals over seeds and examples."
CURVES = "Lines: mean over seeds. Hollow marks: one exit for every example."
EXITS = f"Whiskers: {NESTED}"


def study_figures(study: MethodStudy) -> dict[str, Figure]:
    """Every figure that the study has content for, by file name."""
    figures: dict[str, Figure] = {}
    for backbone in dict.fromkeys(setting.backbone for setting in study.groups):
        settings = [setting for setting in study.groups if setting.backbone == backbone]
        name = slug(backbone)  # a hub name has a slash
        methods = [m for m in study.methods if any(m in study.groups[setting] for setting in settings)]
        note = CURVES if len(study.methods) > MANY else f"{CURVES} Bands: lowest and highest seed."
        for kind, draw, title, words in (
            ("curves", _curves, f"Score against cost, {backbone}", note),
            ("exits", _exits, f"Every exit by itself, {backbone}", EXITS),
        ):
            panels = [
                (f"{s.task}, {size_of(s.train_size)} examples", partial(draw, study, s)) for s in settings
            ]
            figures[f"{kind}-{name}"] = multiples(panels, title, words, _marks(study, methods), beside=BESIDE)
        rows = study.differences.query("backbone == @backbone and measure == 'exits'")
        if len(rows):
            figures[f"differences-{name}"] = _differences(study, rows, backbone)
        sized = rows.dropna(subset="train_size")
        several = sized[sized.groupby("where")["train_size"].transform("nunique") > 1]
        if len(several):
            figures[f"sizes-{name}"] = _sizes(study, several, backbone)
    return figures


def _marks(study: MethodStudy, methods: Sequence[str]) -> Marks:
    return {name_of(method): _style(study, method) for method in methods}


def _style(study: MethodStudy, method: str) -> dict[str, Any]:
    """Colour and mark of a method: the same in all figures."""
    position = study.methods.index(method)
    shape = marker(position + position // len(MARKERS))  # colours repeat, with other marks
    return {"color": colour(position), "marker": shape, **MARK}


def _curves(study: MethodStudy, setting: ModelSetting, axes: Axes) -> None:
    comparison = study.comparisons[setting]
    for method, curves in comparison.curves.items():
        style = _style(study, method)
        costs, middle, low, high = mean_curve(curves)
        axes.plot(costs, middle, color=style["color"], lw=1.8)
        if len(curves) > 1 and len(study.methods) <= MANY:
            axes.fill_between(costs, low, high, color=style["color"], alpha=0.12, lw=0)
        exits = [(floats(c.static, "cost"), floats(c.static, "score")) for c in curves]
        cost, score = (sum(values) / len(exits) for values in zip(*exits, strict=True))
        axes.plot(cost, score, ls="", zorder=4, **style)
    axes.set_xlim(0, FAR)
    axes.set_xlabel("Cost (share of FLOPs)", fontsize=10)
    axes.set_ylabel(comparison.metric.capitalize(), fontsize=10)


def _exits(study: MethodStudy, setting: ModelSetting, axes: Axes) -> None:
    comparison = study.comparisons[setting]
    scores = [row for row in comparison.scores.to_pylist() if row["place"].startswith("layer ")]
    layers = list(dict.fromkeys(row["place"] for row in scores))
    methods = list(study.groups[setting])
    step = min(0.16, 0.7 / len(methods))
    for row in scores:
        x = layers.index(row["place"]) + (methods.index(row["method"]) - (len(methods) - 1) / 2) * step
        style = _style(study, row["method"])
        axes.vlines(x, row["low"], row["high"], color=style["color"], lw=1.8)
        axes.plot(x, row["score"], zorder=4, **style)
    axes.set_xticks(range(len(layers)), [layer.removeprefix("layer ") for layer in layers])
    axes.set_xlabel("Exit layer", fontsize=10)
    axes.set_ylabel(comparison.metric.capitalize(), fontsize=10)
    axes.grid(visible=False, axis="x")


def _differences(study: MethodStudy, rows: pd.DataFrame, backbone: str) -> Figure:
    """Individual classifiers against the baseline's, task by task, with the paper's averages as dashed lines."""
    names = [r.where if pd.isna(r.train_size) else f"{r.where}, {r.train_size:,}" for r in rows.itertuples()]
    lines = list(dict.fromkeys(names))
    title = f"Against {name_of(study.methods[0])}, {backbone}"
    with single(1.8 + 0.42 * len(lines), title) as (figure, axes):
        step = min(0.18, 0.7 / max(len(study.others), 1))
        for name, row in zip(names, rows.itertuples(), strict=True):
            style = _style(study, row.method)
            y = lines.index(name) + (study.others.index(row.method) - (len(study.others) - 1) / 2) * step
            axes.hlines(y, POINTS * row.low, POINTS * row.high, color=style["color"], lw=2)
            axes.plot(POINTS * row.difference, y, zorder=4, **style)
        for method, claim in study.claims.items():
            axes.axvline(claim, color=_style(study, method)["color"], lw=1.2, ls="--", zorder=1)
        axes.axvline(0, color=GREY, lw=1)
        rows_downwards(axes, lines)
        axes.set_xlabel("Difference in points, mean over the exits")
        legend(figure, _marks(study, study.others), beside=BESIDE)
        claimed = " Dashed: the SWEET paper's averages, on other encoders." if study.claims else ""
        caption(figure, f"Bars: {NESTED}{claimed}")
    return figure


def _sizes(study: MethodStudy, rows: pd.DataFrame, backbone: str) -> Figure:
    """The gap to the baseline against the number of training examples, a panel per task."""
    panels = [
        (task, partial(_sizes_of_task, study, of_task)) for task, of_task in rows.groupby("where", sort=False)
    ]
    title = f"The gap by training examples, {backbone}"
    words = f"Points against {name_of(study.methods[0])}, mean over the exits. Bars: {NESTED}"
    return multiples(panels, title, words, _marks(study, study.others), sharey=True, beside=BESIDE)


def _sizes_of_task(study: MethodStudy, rows: pd.DataFrame, axes: Axes) -> None:
    for i, method in enumerate(study.others):
        own = rows[rows["method"] == method].sort_values("train_size")
        style = _style(study, method)
        x = own["train_size"].astype(float) * (1 + 0.03 * (i - (len(study.others) - 1) / 2))
        axes.vlines(x, POINTS * own["low"], POINTS * own["high"], color=style["color"], lw=1.6)
        axes.plot(x, POINTS * own["difference"], **style, lw=1.6)
    sizes = sorted(rows["train_size"].unique())
    axes.axhline(0, color=GREY, lw=1)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("Training examples", fontsize=10)
    axes.set_ylabel("Points", fontsize=10)
