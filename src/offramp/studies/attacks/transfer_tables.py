"""Transfer matrices: the gain lost on one model to texts, or trigger words, made against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from offramp.criteria import CRITERIA
from offramp.evaluation.robustness import efficiency_drop
from offramp.reports.text_table import TextTable, number
from offramp.studies.attacks.results import order_of
from offramp.studies.training.tables import name_of
from offramp.training.strategies import STRATEGIES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SOURCE = ["source_task", "source_method", "source_criterion"]
TARGET = ["method", "criterion"]
MATRIX = ["backbone", "attack", "task"]
# From the nearest pairs of source and target to the farthest.
KINDS = (
    "same model and rule",
    "same model, other rule",
    "same method, other seed",
    "other method",
    "other task",
)
NOTE = (
    "Rows: where the texts were found; columns: the model that they were run on. Share of the gain lost, from costs "
    "averaged over all pairs of different models (other seeds, other methods); in parentheses, where a study has one "
    "seed, the model that the texts were found on itself."
)


@dataclass(frozen=True)
class TransferMatrix:
    """One transfer matrix.

    Attributes:
        backbone, attack, task: what was attacked, how; the task of the columns.
        values: share of the gain lost, NaN where unknown; rows by `SOURCE`, columns by `TARGET`.
        own: of the same shape, whether a value is that of the very model that was attacked.
    """

    backbone: str
    attack: str
    task: str
    values: pd.DataFrame
    own: pd.DataFrame

    def row_names(self) -> list[str]:
        """With the task only where it is not that of the columns."""
        return [
            ", ".join([*([task] if task != self.task else []), name_of(method), criterion])
            for task, method, criterion in self.values.index
        ]

    def column_names(self) -> list[str]:
        return [f"{name_of(method)}, {criterion}" for method, criterion in self.values.columns]

    def table(self) -> TextTable:
        """The matrix for reading."""
        cells = self.values.map(lambda value: number(value, 2))
        cells = cells.mask(self.own & self.values.notna(), "(" + cells + ")")
        rows = tuple((name, *row) for name, row in zip(self.row_names(), cells.to_numpy(), strict=True))
        title = f"Transfer of {self.attack}, {self.backbone}, {self.task}"
        return TextTable(title, ("found on ↓, run on →", *self.column_names()), rows, NOTE)


def transfer_matrices(transfers: pa.Table | None) -> list[TransferMatrix]:
    """A matrix for each encoder, attack and task."""
    return [] if transfers is None else [_matrix(group) for _, group in _with_kind(transfers).groupby(MATRIX)]


def _matrix(frame: pd.DataFrame) -> TransferMatrix:
    backbone, attack, task = frame.iloc[0][MATRIX]
    keys = [*SOURCE, *TARGET]
    only_own = frame.groupby(keys)["own"].transform("all")
    cells = frame[only_own | ~frame["own"]].groupby(keys)
    values = cells[["clean_cost", "adversarial_cost"]].apply(_drop).unstack(TARGET)
    own = cells["own"].all().unstack(TARGET, fill_value=False)

    def order(key: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
        return order_of(key[0], STRATEGIES), order_of(key[1], CRITERIA)

    rows = sorted(values.index, key=lambda key: (key[0] != task, key[0], *order(key[1:])))
    columns = sorted(values.columns, key=order)
    return TransferMatrix(backbone, attack, task, values.loc[rows, columns], own.loc[rows, columns])


def _drop(pairs: pd.DataFrame) -> float:
    """The share of the gain lost, from the costs averaged over pairs."""
    costs = [pairs[f"{side}_cost"].to_numpy(float) for side in ("clean", "adversarial")]
    return float(efficiency_drop(*(np.mean(cost) if len(pairs) else np.nan for cost in costs)))


def _with_kind(transfers: pa.Table) -> pd.DataFrame:
    """The pairs of a source and a target with `kind`, one of `KINDS`, and `own`: the very model that was attacked."""
    frame = transfers.to_pandas()
    alike = {name: frame[f"source_{name}"] == frame[name] for name in ("task", "method", "seed", "criterion")}
    differs = [~alike["task"], ~alike["method"], ~alike["seed"], ~alike["criterion"]]
    frame["kind"] = np.select(differs, [KINDS[4], KINDS[3], KINDS[2], KINDS[1]], KINDS[0])
    frame["own"] = frame["kind"].isin(KINDS[:2])
    return frame


def summary_table(transfers: pa.Table | None) -> TextTable:
    """The gain lost by how near the attacked model is to the one that the texts were run on, by attack and task."""
    title = "How far texts carry"
    if transfers is None:
        return TextTable(title, (), ())
    frame, rows = _with_kind(transfers), []
    for key, group in frame.groupby(MATRIX, sort=False):
        saving = group[group["clean_cost"] < 1]
        kinds = [saving[saving["kind"] == kind] for kind in KINDS]
        rows.append((*key, *(f"{number(_drop(pairs), 3)} ({len(pairs)})" for pairs in kinds)))
    note = "Share of the gain lost, and the number of pairs of an attack and a model under an exit rule."
    return TextTable(title, ("encoder", "attack", "task", *KINDS), tuple(rows), note, words=3)
