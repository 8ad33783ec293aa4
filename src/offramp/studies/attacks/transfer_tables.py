"""Transfer matrices: how much is lost on one model to the texts, or the words in front, found on another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.robustness import efficiency_drop
from offramp.reports.text_table import TextTable, number
from offramp.studies.attacks.results import CRITERIA, order_of
from offramp.studies.training.tables import name_of
from offramp.training.strategies import STRATEGIES

if TYPE_CHECKING:
    import pyarrow as pa

NOTE = (
    "Rows: where the texts were found; columns: the model that they were run on. Share of the gain lost, from costs "
    "averaged over all pairs of different models (other seeds, other methods); in parentheses, where a study has one "
    "seed, the model that the texts were found on itself."
)


@dataclass(frozen=True)
class Matrix:
    """One transfer matrix.

    Attributes:
        backbone, attack, task: what was attacked, how; the task of the columns.
        rows: where texts were found: task, method, criterion.
        columns: where they were run: method, criterion.
        values: `(rows, columns)` share of the gain lost, NaN where unknown.
        own: `(rows, columns)` whether a value is that of the very model that was attacked.
    """

    backbone: str
    attack: str
    task: str
    rows: tuple[tuple[str, str, str], ...]
    columns: tuple[tuple[str, str], ...]
    values: NDArray[np.float64]
    own: NDArray[np.bool_]

    def row_names(self) -> list[str]:
        """Names of the rows; the task only where it is not that of the columns."""
        return [
            ", ".join([*([task] if task != self.task else []), name_of(method), criterion])
            for task, method, criterion in self.rows
        ]

    def column_names(self) -> list[str]:
        """Names of the columns."""
        return [f"{name_of(method)}, {criterion}" for method, criterion in self.columns]

    def table(self) -> TextTable:
        """The matrix for reading."""
        rows = [
            (name, *(_cell(value, own) for value, own in zip(values, owned, strict=True)))
            for name, values, owned in zip(self.row_names(), self.values, self.own, strict=True)
        ]
        title = f"Transfer of {self.attack}, {self.backbone}, {self.task}"
        return TextTable(title, ("found on ↓, run on →", *self.column_names()), tuple(rows), NOTE)


def _cell(value: float, own: bool) -> str:
    return f"({number(value, 2)})" if own and not np.isnan(value) else number(value, 2)


def matrices(transfers: pa.Table | None) -> list[Matrix]:
    """A matrix for each encoder, attack and task."""
    if transfers is None:
        return []
    rows = transfers.to_pylist()
    places = dict.fromkeys((row["backbone"], row["attack"], row["task"]) for row in rows)
    return [
        _matrix(*place, [row for row in rows if (row["backbone"], row["attack"], row["task"]) == place])
        for place in sorted(places)
    ]


def _matrix(backbone: str, attack: str, task: str, found: list[dict[str, Any]]) -> Matrix:
    names = sorted({_source(row) for row in found}, key=lambda n: (n[0] != task, n[0], *_order(*n[1:])))
    columns = sorted({(row["method"], row["criterion"]) for row in found}, key=lambda n: _order(*n))
    values, own = np.full((len(names), len(columns)), np.nan), np.zeros((len(names), len(columns)), bool)
    for i, name in enumerate(names):
        for j, column in enumerate(columns):
            here = [r for r in found if _source(r) == name and (r["method"], r["criterion"]) == column]
            others = [r for r in here if not _is_own(r)]
            own[i, j] = bool(here) and not others
            chosen = others or here
            if chosen:
                costs = (np.mean([r[f"{side}_cost"] for r in chosen]) for side in ("clean", "adversarial"))
                values[i, j] = efficiency_drop(*costs)
    return Matrix(backbone, attack, task, tuple(names), tuple(columns), values, own)


def _source(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["source_task"], row["source_method"], row["source_criterion"]


def _is_own(row: dict[str, Any]) -> bool:
    """Whether the texts were found on the model that they were run on; its exit rule may be another one."""
    source = (row["source_task"], row["source_method"], row["source_seed"])
    return source == (row["task"], row["method"], row["seed"])


def _order(method: str, criterion: str) -> tuple[Any, ...]:
    return order_of(method, list(STRATEGIES)), order_of(criterion, CRITERIA)


def summary_table(transfers: pa.Table | None) -> TextTable:
    """What is lost on the very model, on another seed of its method, and on another method, by attack and task."""
    title = "How far texts carry"
    if transfers is None:
        return TextTable(title, (), ())
    rows = transfers.to_pylist()
    costs = {side: floats(transfers, f"{side}_cost") for side in ("clean", "adversarial")}
    kinds = np.array([_kind(row) for row in rows])
    places = [(row["backbone"], row["attack"], row["task"]) for row in rows]
    told = []
    for place in dict.fromkeys(places):
        here = np.array([one == place for one in places]) & (costs["clean"] < 1)
        cells = []
        for kind in KINDS:
            chosen = here & (kinds == kind)
            pair = (costs[side][chosen].mean() if chosen.any() else np.nan for side in costs)
            cells.append(f"{number(float(efficiency_drop(*pair)), 3)} ({chosen.sum()})")
        told.append((*place, *cells))
    note = "Share of the gain lost, and the number of pairs of an attack and a model under an exit rule."
    return TextTable(title, ("encoder", "attack", "task", *KINDS), tuple(told), note, words=3)


KINDS = (
    "same model and rule",
    "same model, other rule",
    "same method, other seed",
    "other method",
    "other task",
)


def _kind(row: dict[str, Any]) -> str:
    if row["source_task"] != row["task"]:
        return KINDS[4]
    if row["source_method"] != row["method"]:
        return KINDS[3]
    if row["source_seed"] != row["seed"]:
        return KINDS[2]
    return KINDS[0] if row["source_criterion"] == row["criterion"] else KINDS[1]
