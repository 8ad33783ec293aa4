"""The figures of a sweep's report: small multiples by task, and differences beside the paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offramp.evaluation.arrow_tables import floats, rows_where
from offramp.reports.figures import FAR, mean_curve
from offramp.reports.style import GREY, MARKERS, WIDTH, caption, colour, marker, new_figure, styled
from offramp.studies.names import slug
from offramp.studies.training.results import ModelSetting
from offramp.studies.training.study import MethodStudy
from offramp.studies.training.tables import POINTS, name_of, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2  # panels side by side
MANY = 4  # methods beyond which bands would hide each other
BESIDE = 3  # methods whose legend fits beside the title
NESTED = "95 % bootstrap intervals over seeds and examples."

Draw = Callable[["Axes", MethodStudy, ModelSetting], None]


def study_figures(study: MethodStudy) -> dict[str, Figure]:
    """Every figure that the study has content for, by file name."""
    figures: dict[str, Figure] = {}
    for backbone in dict.fromkeys(place.backbone for place in study.groups):
        places = [place for place in study.groups if place.backbone == backbone]
        name = slug(backbone)  # a hub name has a slash
        words = CURVES if len(study.methods) > MANY else f"{CURVES} Bands: lowest and highest seed."
        figures[f"curves-{name}"] = _multiples(
            study, places, _curves, f"Score against cost, {backbone}", words
        )
        figures[f"exits-{name}"] = _multiples(
            study, places, _exits, f"Every exit by itself, {backbone}", EXITS
        )
        rows = rows_where(rows_where(study.differences, "backbone", backbone), "measure", "exits").to_pylist()
        if rows:
            figures[f"differences-{name}"] = differences_figure(study, rows, backbone)
        several = _sizes(rows)
        if several:
            figures[f"sizes-{name}"] = sizes_figure(study, several, backbone)
    return figures


CURVES = "Lines: mean over seeds. Hollow marks: one exit for every example."
EXITS = f"Whiskers: {NESTED}"


def _multiples(
    study: MethodStudy, places: Sequence[ModelSetting], draw: Draw, title: str, words: str
) -> Figure:
    """One panel a place, with one legend for all."""
    from matplotlib.figure import Figure

    with styled():
        columns = min(COLUMNS, len(places))
        rows = -(-len(places) // columns)
        figure = Figure(figsize=(WIDTH, 2.9 * rows + 1.0), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, place in zip(panels, places, strict=False):
            draw(panel, study, place)
            panel.set_title(f"{place.task}, {size_of(place)} examples", fontsize=11, fontweight="normal")
            panel.set_ylabel(study.comparisons[place].metric.capitalize(), fontsize=10)
        for panel in panels[len(places) :]:
            panel.set_visible(False)
        _legend(figure, study, [m for m in study.methods if any(m in study.groups[p] for p in places)])
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
        caption(figure, words)
    return figure


def _legend(figure: Figure, study: MethodStudy, methods: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], **_style(study, m), label=name_of(m)) for m in methods]
    where: Any = "outside upper right" if len(marks) <= BESIDE else "outside right upper"
    figure.legend(handles=marks, loc=where, ncols=len(marks) if len(marks) <= BESIDE else 1, fontsize=10)


def _style(study: MethodStudy, method: str) -> dict[str, Any]:
    """Colour and mark of a method: the same in all figures."""
    place = study.methods.index(method)
    shape = marker(place + place // len(MARKERS))  # colours come round again, with other marks
    return {"color": colour(place), "marker": shape, "mfc": "white", "mew": 1.6, "ms": 6}


def _curves(panel: Axes, study: MethodStudy, place: ModelSetting) -> None:
    for method, curves in study.comparisons[place].curves.items():
        style = _style(study, method)
        costs, middle, low, high = mean_curve(curves)
        panel.plot(costs, middle, color=style["color"], lw=1.8)
        if len(curves) > 1 and len(study.methods) <= MANY:
            panel.fill_between(costs, low, high, color=style["color"], alpha=0.12, lw=0)
        exits = [(floats(c.static, "cost"), floats(c.static, "score")) for c in curves]
        cost, score = (sum(values) / len(exits) for values in zip(*exits, strict=True))
        panel.plot(cost, score, ls="", zorder=4, **style)
    panel.set_xlim(0, FAR)
    panel.set_xlabel("Cost (share of FLOPs)", fontsize=10)


def _exits(panel: Axes, study: MethodStudy, place: ModelSetting) -> None:
    scores = [row for row in study.comparisons[place].scores.to_pylist() if row["place"].startswith("layer ")]
    layers = list(dict.fromkeys(row["place"] for row in scores))
    methods = list(study.groups[place])
    step = min(0.16, 0.7 / len(methods))
    for row in scores:
        at = layers.index(row["place"]) + (methods.index(row["method"]) - (len(methods) - 1) / 2) * step
        style = _style(study, row["method"])
        panel.vlines(at, row["low"], row["high"], color=style["color"], lw=1.8)
        panel.plot(at, row["score"], zorder=4, **style)
    panel.set_xticks(range(len(layers)), [layer.removeprefix("layer ") for layer in layers])
    panel.set_xlabel("Exit layer", fontsize=10)
    panel.grid(visible=False, axis="x")


def differences_figure(study: MethodStudy, rows: Sequence[Mapping[str, Any]], backbone: str) -> Figure:
    """Individual classifiers against the baseline's, task by task, with the paper's averages as dashed lines.

    Args:
        study: for colours and names.
        rows: of `study.differences`, of one encoder and the measure "exits".
        backbone: the encoder.
    """
    names = [r["where"] if r["train_size"] is None else f"{r['where']}, {r['train_size']:,}" for r in rows]
    lines = list(dict.fromkeys(names))
    with styled():
        figure, axes = new_figure(1.8 + 0.42 * len(lines))
        base = name_of(study.methods[0])
        figure.suptitle(f"Against {base}, {backbone}", x=0.01, ha="left", fontweight="bold", fontsize=13)
        step = min(0.18, 0.7 / max(len(study.others), 1))
        for name, row in zip(names, rows, strict=True):
            style = _style(study, row["method"])
            at = lines.index(name) + (study.others.index(row["method"]) - (len(study.others) - 1) / 2) * step
            axes.hlines(at, POINTS * row["low"], POINTS * row["high"], color=style["color"], lw=2)
            axes.plot(POINTS * row["difference"], at, zorder=4, **style)
        for method in study.others:
            if method in study.claims:
                axes.axvline(
                    study.claims[method], color=_style(study, method)["color"], lw=1.2, ls="--", zorder=1
                )
        axes.axvline(0, color=GREY, lw=1)
        axes.set_yticks(range(len(lines)), lines)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("Difference in points, mean over the exits")
        _legend(figure, study, study.others)
        claimed = " Dashed: the SWEET paper's averages, on other encoders." if study.claims else ""
        caption(figure, f"Bars: {NESTED}{claimed}")
    return figure


def sizes_figure(study: MethodStudy, rows: Sequence[Mapping[str, Any]], backbone: str) -> Figure:
    """The gap to the baseline against the number of training examples, a panel a task.

    Args:
        study: for colours and names.
        rows: of `study.differences`, those of tasks with several sizes.
        backbone: the encoder.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["where"] for row in rows))
    with styled():
        columns = min(COLUMNS, len(tasks))
        count = -(-len(tasks) // columns)
        figure = Figure(figsize=(WIDTH, 2.9 * count + 1.0), layout="constrained")
        panels = figure.subplots(count, columns, squeeze=False, sharey=True).ravel()
        for panel, task in zip(panels, tasks, strict=False):
            _draw_sizes(panel, study, [row for row in rows if row["where"] == task])
            panel.set_title(task, fontsize=11, fontweight="normal")
        for panel in panels[len(tasks) :]:
            panel.set_visible(False)
        _legend(figure, study, study.others)
        figure.suptitle(
            f"The gap by training examples, {backbone}", x=0.01, ha="left", fontweight="bold", fontsize=13
        )
        caption(figure, f"Points against Early-Exit, mean over the exits. Bars: {NESTED}")
    return figure


def _draw_sizes(panel: Axes, study: MethodStudy, rows: Sequence[Mapping[str, Any]]) -> None:
    for i, method in enumerate(study.others):
        mine = sorted((row for row in rows if row["method"] == method), key=lambda row: row["train_size"])
        style = _style(study, method)
        at = [row["train_size"] * (1 + 0.03 * (i - (len(study.others) - 1) / 2)) for row in mine]
        low, high = ([POINTS * row[name] for row in mine] for name in ("low", "high"))
        panel.vlines(at, low, high, color=style["color"], lw=1.6)
        panel.plot(at, [POINTS * row["difference"] for row in mine], **style, lw=1.6)
    sizes = sorted({row["train_size"] for row in rows})
    panel.axhline(0, color=GREY, lw=1)
    panel.set_xscale("log")
    panel.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    panel.set_xticks([], minor=True)
    panel.set_xlabel("Training examples", fontsize=10)
    panel.set_ylabel("Points", fontsize=10)


def _sizes(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of tasks that were run with several numbers of training examples."""
    tried: dict[str, set[int]] = {}
    for row in rows:
        if row["train_size"] is not None:
            tried.setdefault(row["where"], set()).add(row["train_size"])
    return [r for r in rows if len(tried.get(r["where"], ())) > 1 and r["train_size"] is not None]
