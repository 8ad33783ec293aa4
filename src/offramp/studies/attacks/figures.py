"""The figures of an attack study's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp.attacks.recipes import recipe_named
from offramp.attacks.recipes.same import SAME_CLAIM
from offramp.reports.style import (
    ATTACKED,
    GREY,
    WIDTH,
    caption,
    colour,
    marker,
    new_figure,
    shown,
    styled,
)
from offramp.studies.attacks.study import AttackStudy, Numbers
from offramp.studies.attacks.tables import ablated
from offramp.studies.attacks.transfer_tables import Matrix, matrices
from offramp.studies.names import slug
from offramp.studies.training.tables import name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2  # panels side by side
BARS = "Bars: 95 % bootstrap intervals over examples and seeds."
BEYOND = "Above 1: costlier than the full model, which a cascade can be."
BEHIND = 0.5  # how far intervals are drawn beyond the last estimate
DASHED = "Dashed: the SAME paper's 80 %."
WIDEST = 12  # columns of a matrix whose values are written into it


def attack_figures(study: AttackStudy) -> dict[str, Figure]:
    """Every figure that the study has content for, by file name."""
    figures: dict[str, Figure] = {}
    for backbone in study.values("backbone"):
        name = slug(backbone)
        for attack in _main(study):
            if study.where(backbone=backbone, attack=attack):
                figures[f"drop-{slug(attack)}-{name}"] = panels(study, backbone, attack, "drop")
                figures[f"cost-{slug(attack)}-{name}"] = panels(study, backbone, attack, "cost")
        if len(study.values("attack")) > 1:
            figures[f"attacks-{name}"] = attacks_figure(study, backbone)
        if ablated(study):
            figures[f"ablations-{name}"] = ablation_figure(study, backbone)
    for matrix in matrices(study.transfers):
        stem = f"transfer-{slug(matrix.attack)}-{slug(matrix.task)}-{slug(matrix.backbone)}"
        figures[stem] = matrix_figure(matrix)
    return figures


def _main(study: AttackStudy) -> list[str]:
    """The attacks that get figures by task: the slowdown recipes under their own names that all tasks have."""
    own_names = [attack for attack in study.values("attack") if attack == study.recipe(attack)]
    attacks = [attack for attack in own_names if not _kind(attack)]
    tasks = set(study.values("task"))
    whole = [a for a in attacks if {p.task for p in study.where(attack=a)} == tasks]
    return (whole or study.values("attack"))[:2]


def panels(study: AttackStudy, backbone: str, attack: str, what: str) -> Figure:
    """A panel a task: exit rules downwards, methods by colour; the gain lost, or the costs before and after."""
    from matplotlib.figure import Figure

    tasks = [t for t in study.values("task") if study.where(backbone=backbone, attack=attack, task=t)]
    criteria, methods = study.values("criterion"), study.values("method")
    with styled():
        columns = min(COLUMNS, len(tasks))
        rows = -(-len(tasks) // columns)
        height = (0.7 + 0.2 * len(criteria) * len(methods)) * rows + 1.0
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes, task in zip(grid, tasks, strict=False):
            for i, method in enumerate(methods):
                for j, criterion in enumerate(criteria):
                    at = j + (i - (len(methods) - 1) / 2) * 0.8 / max(len(methods), 2)
                    for place in study.where(
                        backbone=backbone, attack=attack, task=task, method=method, criterion=criterion
                    ):
                        (_drop if what == "drop" else _costs)(axes, study.numbers[place], at, i)
            _frame(axes, task, criteria, what)
        for axes in grid[len(tasks) :]:
            axes.set_visible(False)
        _legend(figure, methods)
        title = "Share of the gain lost" if what == "drop" else "Cost before and after"
        # On two lines, since the methods stand beside it.
        figure.suptitle(
            f"{title}\n{shown(attack)}, {shown(backbone)}", x=0.01, ha="left", fontweight="bold", fontsize=13
        )
        words = f"{BARS} {DASHED} {BEYOND}" if what == "drop" else f"Hollow: clean. Full: attacked. {BARS}"
        caption(figure, words)
    return figure


def _drop(axes: Axes, found: Numbers, at: float, i: int) -> None:
    estimate, low, high = found.interval("efficiency_drop")
    axes.hlines(at, low, high, color=colour(i), lw=1.8)
    axes.plot(estimate, at, marker(i), color=colour(i), ms=6, mfc="white", mew=1.6, zorder=4)


def _costs(axes: Axes, found: Numbers, at: float, i: int) -> None:
    sides = [found.interval(f"{side}_cost") for side in ("clean", "adversarial")]
    axes.plot([side[0] for side in sides], [at, at], color=GREY, lw=1, zorder=2)
    for (estimate, low, high), full in zip(sides, (False, True), strict=True):
        axes.hlines(at, low, high, color=colour(i), lw=1.8, alpha=0.6)
        axes.plot(
            estimate,
            at,
            marker(i),
            color=colour(i),
            ms=6,
            mfc=colour(i) if full else "white",
            mew=1.6,
            zorder=4,
        )


def _frame(axes: Axes, task: str, criteria: Sequence[str], what: str) -> None:
    axes.set_title(shown(task), fontsize=11, fontweight="normal")
    axes.set_yticks(range(len(criteria)), list(criteria))
    axes.set_ylim(len(criteria) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.axvline(0 if what == "drop" else 1, color=GREY, lw=1)
    if what == "drop":
        axes.axvline(SAME_CLAIM, color=GREY, lw=1.2, ls="--", zorder=1)
        _reach(axes)
    axes.set_xlabel("Share of the gain lost" if what == "drop" else "Cost (share of FLOPs)", fontsize=10)


def _legend(figure: Figure, methods: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"ls": "", "mfc": "white", "mew": 1.6, "ms": 6}
    marks = [
        Line2D([], [], color=colour(i), marker=marker(i), label=shown(name_of(m)), **style)
        for i, m in enumerate(methods)
    ]
    where: Any = "outside upper right"
    figure.legend(handles=marks, loc=where, ncols=len(marks), fontsize=10)


def attacks_figure(study: AttackStudy, backbone: str) -> Figure:
    """The gain lost to every attack by method, on average over tasks and exit rules."""
    attacks, methods = study.values("attack"), study.values("method")
    with styled():
        figure, axes = new_figure(1.5 + (0.2 + 0.13 * len(methods)) * len(attacks))
        figure.suptitle(
            f"What attacks take away, {backbone}", x=0.01, ha="left", fontweight="bold", fontsize=13
        )
        for row, attack in enumerate(attacks):
            for i, method in enumerate(methods):
                places = study.shared(backbone=backbone, method=method)
                found = study.mean(place for place in places if place.attack == attack)
                if found is not None:
                    _drop(axes, found, row + (i - (len(methods) - 1) / 2) * 0.8 / max(len(methods), 2), i)
        _rows(axes, [f"{attack}{_kind(study.recipe(attack))}" for attack in attacks])
        _reach(axes)
        axes.axvline(SAME_CLAIM, color=GREY, lw=1.2, ls="--", zorder=1)
        axes.axvline(0, color=GREY, lw=1)
        axes.set_xlabel("Share of the gain lost")
        _legend(figure, methods)
        caption(figure, f"{BARS} {DASHED} {BEYOND}")
    return figure


def _kind(recipe: str) -> str:
    facts = recipe_named(recipe)
    return " (accuracy)" if facts.goal == "misclassification" else " (floor)" if facts.is_baseline else ""


def _reach(axes: Axes) -> None:
    """Limits that show every estimate; an interval of a share of next to nothing may run out of the picture."""
    marks = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]  # type: ignore[arg-type, index]
    marks = [mark for mark in marks if np.isfinite(mark)]
    low, high = axes.get_xlim()
    least, most = min([*marks, 0.0]), max([*marks, 1.0])
    axes.set_xlim(max(low, least - BEHIND), min(max(high, 1.05), most + BEHIND))


def ablation_figure(study: AttackStudy, backbone: str) -> Figure:
    """Variants of a recipe against the recipe itself."""
    lines = []
    for attack, base in ablated(study):
        pair = study.pair("attack", attack, base, backbone=backbone)
        if pair is not None:
            lines.append((f"{attack} ({base})", pair[0].against(pair[1], "efficiency_drop")))
    with styled():
        figure, axes = new_figure(1.5 + 0.34 * len(lines))
        figure.suptitle(f"Ablations, {backbone}", x=0.01, ha="left", fontweight="bold", fontsize=13)
        for row, (_, numbers) in enumerate(lines):
            _bar(axes, numbers, row, ATTACKED)
        _rows(axes, [name for name, _ in lines])
        axes.axvline(0, color=GREY, lw=1)
        axes.set_xlabel("Difference in the share of the gain lost")
        caption(figure, f"Against the recipe in parentheses, paired. {BARS}")
    return figure


def _bar(axes: Axes, numbers: tuple[float, float, float], row: int, shade: str) -> None:
    estimate, low, high = numbers
    axes.hlines(row, low, high, color=shade, lw=2)
    axes.plot(estimate, row, "o", color=shade, ms=7, zorder=4)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [shown(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


def matrix_figure(matrix: Matrix) -> Figure:
    """A transfer matrix as a heat map."""
    rows, columns = matrix.row_names(), matrix.column_names()
    with styled():
        figure, axes = new_figure(2.6 + 0.3 * len(rows))
        axes.grid(visible=False)
        image = axes.imshow(np.clip(matrix.values, -0.2, 1), cmap="magma_r", vmin=-0.2, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), [shown(n) for n in columns], rotation=45, ha="right", fontsize=9)
        axes.set_yticks(range(len(rows)), [shown(n) for n in rows], fontsize=9)
        if len(columns) <= WIDEST:
            _write(axes, matrix)
        figure.colorbar(image, label="Share of the gain lost")
        title = f"Transfer of {matrix.attack}: {matrix.task}, {matrix.backbone}"
        figure.suptitle(shown(title), x=0.01, ha="left", fontweight="bold", fontsize=13)
        caption(figure, "Rows: where the texts were found. Columns: the model they were run on.")
    return figure


def _write(axes: Axes, matrix: Matrix) -> None:
    for (i, j), value in np.ndenumerate(matrix.values):
        if np.isfinite(value):
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if value > 0.5 else "black",
            )
