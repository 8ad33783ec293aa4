"""The figures of an attack study's report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from offramp._core.text import slug
from offramp.attacks.recipes.same import SAME_CLAIM
from offramp.reports.style import ATTACKED, GREY, caption, colour, marker, shown
from offramp.studies.attacks.study import AttackStudy, Estimates
from offramp.studies.attacks.transfer_tables import TransferMatrix, transfer_matrices
from offramp.studies.panels import MARK, Marks, legend, multiples, rows_downwards, single
from offramp.studies.training.tables import name_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = "Bars: 95 % bootstrap intervals over examples and seeds."
DROP_CAPTION = (
    f"{BARS} Dashed: the SAME paper's 80 %. Above 1: costlier than the full model, which a cascade can be."
)
COST_CAPTION = f"Hollow: clean. Full: attacked. {BARS}"
DROP_LABEL = "Share of the gain lost"
BEYOND = 0.5  # how far intervals are drawn beyond the last estimate
WIDEST = 12  # columns of a matrix whose values are written into it


def attack_figures(study: AttackStudy) -> dict[str, Figure]:
    """Every figure that the study has content for, by file name."""
    drops = (DROP_LABEL, DROP_CAPTION)
    costs = ("Cost before and after", COST_CAPTION)
    figures: dict[str, Figure] = {}
    for backbone in study.values("backbone"):
        name = slug(backbone)
        for attack in _main_attacks(study):
            if len(study.select(backbone=backbone, attack=attack)):
                stem = f"{slug(attack)}-{name}"
                figures[f"drop-{stem}"] = _panels(study, backbone, attack, drops, _draw_drop, _frame_drop)
                figures[f"cost-{stem}"] = _panels(study, backbone, attack, costs, _draw_costs, _frame_costs)
        if len(study.values("attack")) > 1:
            figures[f"attacks-{name}"] = attacks_figure(study, backbone)
        if study.variants():
            figures[f"ablations-{name}"] = ablation_figure(study, backbone)
    for matrix in transfer_matrices(study.transfers):
        stem = f"transfer-{slug(matrix.attack)}-{slug(matrix.task)}-{slug(matrix.backbone)}"
        figures[stem] = matrix_figure(matrix)
    return figures


def _main_attacks(study: AttackStudy) -> list[str]:
    """The first two slowdown recipes under their own names that all tasks have; else the first two attacks."""
    attacks, tasks = study.values("attack"), set(study.values("task"))
    main = [a for a in attacks if a == study.recorded(a).recipe.name and not _kind(study, a)]
    on_all_tasks = [attack for attack in main if set(study.select(attack=attack)["task"]) == tasks]
    return (on_all_tasks or attacks)[:2]


def _panels(
    study: AttackStudy,
    backbone: str,
    attack: str,
    words: tuple[str, str],
    draw: Callable[[Axes, Estimates, float, int], None],
    frame: Callable[[Axes], None],
) -> Figure:
    """A panel per task: exit rules downwards, methods by colour."""
    criteria, methods = study.values("criterion"), study.values("method")

    def draw_task(settings: pd.DataFrame, axes: Axes) -> None:
        for row in settings.itertuples():
            i = methods.index(row.method)
            draw(axes, row.estimates, criteria.index(row.criterion) + _offset(i, len(methods)), i)
        axes.set_yticks(range(len(criteria)), criteria)
        axes.set_ylim(len(criteria) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        frame(axes)

    tasks = study.select(backbone=backbone, attack=attack).groupby("task", sort=False)
    return multiples(
        [(task, partial(draw_task, settings)) for task, settings in tasks],
        f"{words[0]}\n{shown(attack)}, {shown(backbone)}",  # on two lines, since the methods stand beside it
        words[1],
        _marks(methods),
        height=0.7 + 0.2 * len(criteria) * len(methods),
        sharey=True,
    )


def _offset(method: int, methods: int) -> float:
    """How far below its row a method is drawn."""
    return (method - (methods - 1) / 2) * 0.8 / max(methods, 2)


def _draw_drop(axes: Axes, estimates: Estimates, height: float, method: int) -> None:
    estimate, low, high = estimates.interval("efficiency_drop")
    axes.hlines(height, low, high, color=colour(method), lw=1.8)
    _mark(axes, estimate, height, method)


def _draw_costs(axes: Axes, estimates: Estimates, height: float, method: int) -> None:
    sides = [estimates.interval(f"{side}_cost") for side in ("clean", "adversarial")]
    axes.plot([side[0] for side in sides], [height, height], color=GREY, lw=1, zorder=2)
    for (estimate, low, high), fill in zip(sides, ("white", colour(method)), strict=True):
        axes.hlines(height, low, high, color=colour(method), lw=1.8, alpha=0.6)
        _mark(axes, estimate, height, method, fill)


def _frame_costs(axes: Axes) -> None:
    axes.axvline(1, color=GREY, lw=1)
    axes.set_xlabel("Cost (share of FLOPs)", fontsize=10)


def _mark(axes: Axes, estimate: float, height: float, method: int, fill: str = "white") -> None:
    shade = colour(method)
    axes.plot(estimate, height, marker(method), color=shade, ms=6, mfc=fill, mew=1.6, zorder=4)


def _marks(methods: Sequence[str]) -> Marks:
    return {
        name_of(method): {"ls": "", "color": colour(i), "marker": marker(i), **MARK}
        for i, method in enumerate(methods)
    }


def attacks_figure(study: AttackStudy, backbone: str) -> Figure:
    """The gain lost to every attack by method, on average over tasks and exit rules."""
    attacks, methods = study.values("attack"), study.values("method")
    height = 1.5 + (0.2 + 0.13 * len(methods)) * len(attacks)
    with single(height, f"What attacks take away, {backbone}") as (figure, axes):
        for (row, attack), (i, method) in product(enumerate(attacks), enumerate(methods)):
            estimates = study.average_of(attack, backbone=backbone, method=method)
            if estimates is not None:
                _draw_drop(axes, estimates, row + _offset(i, len(methods)), i)
        rows_downwards(axes, [f"{attack}{_kind(study, attack)}" for attack in attacks])
        _frame_drop(axes)
        axes.xaxis.label.set_fontsize(11)
        legend(figure, _marks(methods))
        caption(figure, DROP_CAPTION)
    return figure


def _kind(study: AttackStudy, attack: str) -> str:
    """What is said of an attack that is no slowdown attack."""
    recipe = study.recorded(attack).recipe
    return " (accuracy)" if recipe.goal == "misclassification" else " (floor)" if recipe.is_baseline else ""


def _frame_drop(axes: Axes) -> None:
    """Draw the lines of no effect and of the claim, within limits that show every estimate.

    The interval of a share of next to nothing may be cut.
    """
    marks = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]  # type: ignore[arg-type, index]
    marks = [mark for mark in marks if np.isfinite(mark)]
    axes.axvline(0, color=GREY, lw=1)
    axes.axvline(SAME_CLAIM, color=GREY, lw=1.2, ls="--", zorder=1)
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, min([*marks, 0.0]) - BEYOND), min(max(high, 1.05), max([*marks, 1.0]) + BEYOND))
    axes.set_xlabel(DROP_LABEL, fontsize=10)


def ablation_figure(study: AttackStudy, backbone: str) -> Figure:
    """Variants of a recipe against the recipe itself."""
    differences = {}
    for attack, base in study.variants():
        pair = study.pair("attack", attack, base, backbone=backbone)
        if pair is not None:
            differences[f"{attack} ({base})"] = pair[0].difference(pair[1], "efficiency_drop")
    with single(1.5 + 0.34 * len(differences), f"Ablations, {backbone}") as (figure, axes):
        for row, (gap, low, high) in enumerate(differences.values()):
            axes.hlines(row, low, high, color=ATTACKED, lw=2)
            axes.plot(gap, row, "o", color=ATTACKED, ms=7, zorder=4)
        rows_downwards(axes, [*differences])
        axes.axvline(0, color=GREY, lw=1)
        axes.set_xlabel("Difference in the share of the gain lost")
        caption(figure, f"Against the recipe in parentheses, paired. {BARS}")
    return figure


def matrix_figure(matrix: TransferMatrix) -> Figure:
    """A transfer matrix as a heat map."""
    rows, columns, values = matrix.row_names(), matrix.column_names(), matrix.values.to_numpy()
    title = f"Transfer of {matrix.attack}: {matrix.task}, {matrix.backbone}"
    with single(2.6 + 0.3 * len(rows), title) as (figure, axes):
        axes.grid(visible=False)
        image = axes.imshow(np.clip(values, -0.2, 1), cmap="magma_r", vmin=-0.2, vmax=1, aspect="auto")
        axes.set_xticks(range(len(columns)), [shown(n) for n in columns], rotation=45, ha="right", fontsize=9)
        axes.set_yticks(range(len(rows)), [shown(n) for n in rows], fontsize=9)
        for (i, j), value in np.ndenumerate(values) if len(columns) <= WIDEST else ():
            if np.isfinite(value):
                shade = "white" if value > 0.5 else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=shade)
        figure.colorbar(image, label=DROP_LABEL)
        caption(figure, "Rows: where the texts were found. Columns: the model they were run on.")
    return figure
