"""The rows of an attack as checked arrays, the input of all robustness numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import floats, require_columns

if TYPE_CHECKING:
    import pyarrow as pa

Side = Literal["clean", "adversarial"]
Floats = NDArray[np.float64]

SIDES: tuple[Side, Side] = ("clean", "adversarial")
PER_SIDE = ("exit", "layer", "cost", "full_cost", "prediction")
PER_EXAMPLE = ("words", "words_changed", "similarity", "forward_queries", "gradient_queries", "seconds")
FLAGS = ("success", "reached_last")
COLUMNS = ("label", *(f"{side}_{what}" for side in SIDES for what in PER_SIDE), *PER_EXAMPLE, *FLAGS)


@dataclass(frozen=True)
class AttackTable:
    """An attack table by column; arrays are `(examples,)`.

    Attributes:
        columns: every numeric column as float64, NaN where a value is missing.
        exits: exit index, 0-based, by side.
        exit_layers: of the attacked model, from 1.
        exit_costs: `(exits,)` cost of leaving at each exit, as a share of the full model's.
    """

    columns: dict[str, Floats]
    exits: dict[Side, NDArray[np.intp]]
    exit_layers: tuple[int, ...]
    exit_costs: Floats

    def __len__(self) -> int:
        return len(self.columns["label"])


def read_attack(rows: pa.Table, exit_layers: Sequence[int]) -> AttackTable:
    """Check the rows of an attack and split them into arrays.

    Args:
        rows: one row per attacked example, at least one, with `COLUMNS`.
        exit_layers: the attacked model's exits.

    Raises:
        DataError: columns are missing, or the rows come from a model with other exits.
    """
    require_columns(rows, COLUMNS, "an attack table")
    columns = {name: floats(rows, name) for name in COLUMNS}
    layers = tuple(int(layer) for layer in exit_layers)
    exits = {side: _exits(columns, side, layers) for side in SIDES}
    return AttackTable(columns, exits, layers, _exit_costs(columns, exits, layers))


def _exits(columns: dict[str, Floats], side: Side, layers: tuple[int, ...]) -> NDArray[np.intp]:
    """Exit indices of one side; they must be at the layers that the rows name."""
    exits, named = columns[f"{side}_exit"], columns[f"{side}_layer"]
    valid = np.isin(exits, np.arange(len(layers)))
    if not valid.all() or not (np.asarray(layers)[exits.astype(np.intp)] == named).all():
        raise DataError(
            f"the attack table's column {side}_layer does not fit the exits {list(layers)}: "
            "pass the exit layers of the model that was attacked"
        )
    return exits.astype(np.intp)


def _exit_costs(
    columns: dict[str, Floats], exits: dict[Side, NDArray[np.intp]], layers: tuple[int, ...]
) -> Floats:
    """Cost of leaving at each exit, from the examples that left there; unused exits are interpolated."""
    taken = np.concatenate([exits[side] for side in SIDES])
    spent = np.concatenate([columns[f"{side}_cost"] for side in SIDES])
    full = np.concatenate([columns[f"{side}_full_cost"] for side in SIDES])
    taken_exits = np.unique(taken)
    costs = [spent[taken == exit].sum() / full[taken == exit].sum() for exit in taken_exits]
    at = [0.0, *np.asarray(layers, dtype=np.float64)[taken_exits]]
    heights = [0.0, *costs]
    if taken_exits[-1] < len(layers) - 1:
        at, heights = [*at, float(layers[-1])], [*heights, max(1.0, costs[-1])]
    return np.interp(layers, at, heights)
