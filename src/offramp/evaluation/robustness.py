"""All robustness numbers of an attack, from the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import as_table, floats, require_columns, rows_where, with_column
from offramp.evaluation.bootstrap import Interval, Statistic, Weights, interval_table, intervals
from offramp.evaluation.conventions import layer_speedup
from offramp.evaluation.weighted import weighted_score

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
    """The rows of an attack as checked arrays `(examples,)`.

    Attributes:
        columns: every numeric column as float64, NaN where a value is missing.
        exits: exit index, 0-based, by side.
        exit_layers: of the attacked model, from 1.
        exit_costs: `(exits,)` cost of leaving at each exit, as a share of the full model's; it is taken from the
            examples that left there, and interpolated at exits without any.
    """

    columns: dict[str, Floats]
    exits: dict[Side, NDArray[np.intp]]
    exit_layers: tuple[int, ...]
    exit_costs: Floats

    def __len__(self) -> int:
        return len(self.columns["label"])


@dataclass(frozen=True)
class Robustness:
    """Robustness of one model under one attack.

    Attributes:
        examples: how many were attacked.
        intervals: with 95 % bootstrap intervals, by name. For the clean and the adversarial texts (`clean_…`,
            `adversarial_…`): `depth` (mean exit layer), `cost` (share of the full model's FLOPs),
            `layer_speedup` (L / depth), `efficacy`, and the task's metric under its own name. Then
            `efficiency_drop`, `gain_drop`; means per example of `words`, `words_changed`, `similarity`,
            `forward_queries`, `gradient_queries`, `seconds`; `words_changed_share` (of all words); shares of
            examples `success`, `reached_last`. NaN where undefined.
        reasons: why a number is undefined, by name.
    """

    examples: int
    intervals: dict[str, Interval]
    reasons: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """The estimate of that name."""
        return self.intervals[name].estimate

    @property
    def metrics(self) -> dict[str, float]:
        """All estimates by name, and `examples`, for a run record."""
        return {"examples": self.examples} | {name: i.estimate for name, i in self.intervals.items()}

    @property
    def table(self) -> pa.Table:
        """One row per number: `name`, `estimate`, `low`, `high`, `reason` ("" where it is defined)."""
        reasons = [self.reasons.get(name, "") for name in self.intervals]
        return with_column(interval_table(self.intervals.values()), "reason", reasons)


def robustness(
    rows: pa.Table | Sequence[Mapping[str, Any]],
    exit_layers: Sequence[int],
    *,
    metric: str = "accuracy",
    resamples: int = 1000,
    seed: int = 0,
) -> Robustness:
    """Every robustness number of one attack on one model.

    Args:
        rows: the attack table, one row per example.
        exit_layers: the attacked model's exits, from 1.
        metric: a key of `offramp.metrics.METRICS`.
        resamples, seed: of the bootstrap.

    Returns:
        The numbers with their intervals; all undefined for an empty table.

    Raises:
        DataError: columns are missing, or the rows come from a model with other exits.
    """
    content = as_table(rows)
    names = metric_names(metric)
    if content.num_rows == 0:
        nothing = {name: Interval(name, np.nan, np.nan, np.nan) for name in names}
        return Robustness(0, nothing, dict.fromkeys(names, "no example was attacked"))
    attack = read_attack(content, exit_layers)
    estimates = intervals(attack_statistic(attack, metric), resamples=resamples, seed=seed)
    by_name = {interval.name: interval for interval in estimates}
    cost = by_name["clean_cost"].estimate
    explained = {
        "efficiency_drop": f"the clean cost is {cost:.3f} of the full model's: nothing was saved",
        "gain_drop": "every clean example runs to the last layer: there is no gain to lose",
        "words_changed_share": "no words were counted",
        **{f"{side}_{metric}": "some attacked examples have no label" for side in SIDES},
    }
    reasons = {
        name: explained.get(name, f"the attack reported no {name.replace('_', ' ')}")
        for name, interval in by_name.items()
        if np.isnan(interval.estimate)
    }
    return Robustness(len(attack), by_name, reasons)


def robustness_by(
    rows: pa.Table | Sequence[Mapping[str, Any]],
    exit_layers: Sequence[int],
    *,
    column: str = "recipe",
    metric: str = "accuracy",
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Robustness]:
    """Robustness for each value of a column, say each recipe; arguments as in `robustness`."""
    content = as_table(rows)
    require_columns(content, [column], "robustness by group")
    values = dict.fromkeys(content[column].to_pylist())
    return {
        str(value): robustness(
            rows_where(content, column, value), exit_layers, metric=metric, resamples=resamples, seed=seed
        )
        for value in values
    }


def read_attack(rows: pa.Table, exit_layers: Sequence[int]) -> AttackTable:
    """Check the rows of an attack, at least one, with `COLUMNS`, and split them into arrays.

    Raises:
        DataError: columns are missing, or the rows come from a model with other exits.
    """
    require_columns(rows, COLUMNS, "an attack table")
    columns = {name: floats(rows, name) for name in COLUMNS}
    layers = np.asarray(exit_layers, dtype=np.intp)
    exits: dict[Side, NDArray[np.intp]] = {}
    for side in SIDES:
        indices, named = columns[f"{side}_exit"], columns[f"{side}_layer"]
        valid = np.isin(indices, np.arange(len(layers))).all()
        if not valid or (layers[indices.astype(np.intp)] != named).any():
            raise DataError(
                f"the attack table's column {side}_layer does not fit the exits {layers.tolist()}: "
                "pass the exit layers of the model that was attacked"
            )
        exits[side] = indices.astype(np.intp)
    taken = np.concatenate([exits[side] for side in SIDES])
    spent = np.concatenate([columns[f"{side}_cost"] for side in SIDES])
    full = np.concatenate([columns[f"{side}_full_cost"] for side in SIDES])
    taken_exits = np.unique(taken)
    costs = [spent[taken == exit].sum() / full[taken == exit].sum() for exit in taken_exits]
    at, heights = [0.0, *layers[taken_exits].astype(np.float64)], [0.0, *costs]
    if taken_exits[-1] < len(layers) - 1:
        at, heights = [*at, float(layers[-1])], [*heights, max(1.0, costs[-1])]
    return AttackTable(columns, exits, tuple(layers.tolist()), np.interp(layers, at, heights))


def efficiency_drop(clean_cost: ArrayLike, adversarial_cost: ArrayLike) -> Floats:
    """Share of the saved compute that an attack takes away: `1 − (1 − cost_adv) / (1 − cost_clean)`.

    0: nothing is lost. 1: everything is. Above 1: the attacked model costs more than the full one. Below 0: the
    attack made it faster. NaN where the clean cost is 1 or more: there was nothing to lose.
    """
    saved, kept = 1 - np.asarray(clean_cost, dtype=float), 1 - np.asarray(adversarial_cost, dtype=float)
    return 1 - _share(kept, saved)


def gain_drop(clean_speedup: ArrayLike, adversarial_speedup: ArrayLike) -> Floats:
    """Share of the speed-up's gain that is lost: `1 − (speedup_adv − 1) / (speedup_clean − 1)`.

    NaN where the clean speed-up is 1: there was nothing to lose. A speed-up is infinite where every text leaves at
    layer 0: the share is then 0 if the attack leaves it infinite, else 1.
    """
    gained, kept = (np.asarray(side, dtype=float) - 1 for side in (clean_speedup, adversarial_speedup))
    unbounded = np.isposinf(gained)
    lost = 1 - _share(kept, np.where(unbounded, 1.0, gained))
    return np.where(unbounded, ~np.isposinf(kept), lost)


def efficacy(shares: ArrayLike, exit_costs: ArrayLike) -> Floats:
    """Area under (cumulative cost, cumulative share exited), from (0, 0) to (1, 1); near 1 for early, cheap exits.

    Args:
        shares: `(..., exits)` share of the examples that leave at each exit.
        exit_costs: `(exits,)` cost of leaving at each exit; scaled so that the last is 1.

    Source: Hong et al. 2021 (DeepSloth), the early-exit capability curve; WAFFLE (Coalson 2023).
    """
    costs = np.asarray(exit_costs, dtype=float)
    left = np.cumsum(np.asarray(shares, dtype=float), axis=-1)
    start = np.zeros((*left.shape[:-1], 1))
    return np.asarray(np.trapezoid(np.concatenate([start, left], axis=-1), np.append(0.0, costs / costs[-1])))


def attack_statistic(attack: AttackTable, metric: str = "accuracy") -> Statistic:
    """All numbers of `robustness` as one statistic."""
    columns = attack.columns

    def values(weights: Weights) -> Floats:
        numbers: dict[str, Floats] = {}
        for side in SIDES:
            numbers |= _side_numbers(attack, side, metric, weights)
        numbers["efficiency_drop"] = efficiency_drop(numbers["clean_cost"], numbers["adversarial_cost"])
        numbers["gain_drop"] = gain_drop(numbers["clean_layer_speedup"], numbers["adversarial_layer_speedup"])
        numbers |= {name: _mean(columns[name], weights) for name in (*PER_EXAMPLE, *FLAGS)}
        numbers["words_changed_share"] = _share(numbers["words_changed"], numbers["words"])
        return np.stack([numbers[name] for name in metric_names(metric)], axis=1)

    return Statistic(metric_names(metric), len(attack), "", values)


def metric_names(metric: str = "accuracy") -> tuple[str, ...]:
    """Names of all robustness numbers, in the order of reports."""
    paired = [f"{side}_{what}" for what in ("depth", "cost", "layer_speedup") for side in SIDES]
    later = [f"{side}_{what}" for what in ("efficacy", metric) for side in SIDES]
    effort = ["words", "words_changed", "words_changed_share", *PER_EXAMPLE[2:]]
    return (*paired, "efficiency_drop", "gain_drop", *later, *FLAGS, *effort)


def _side_numbers(attack: AttackTable, side: Side, metric: str, weights: Weights) -> dict[str, Floats]:
    columns, exits = attack.columns, attack.exits[side]
    at_exit = (exits[:, None] == np.arange(len(attack.exit_layers))).astype(np.float64)
    shares = weights @ at_exit / weights.sum(axis=1, keepdims=True)
    depth = shares @ np.asarray(attack.exit_layers, dtype=np.float64)
    scored = np.full(len(weights), np.nan)
    if np.isfinite(columns["label"]).all():
        answers = columns[f"{side}_prediction"][:, None]
        scored = weighted_score(metric, columns["label"], answers, weights)[:, 0]
    return {
        f"{side}_depth": depth,
        f"{side}_cost": (weights @ columns[f"{side}_cost"]) / (weights @ columns[f"{side}_full_cost"]),
        f"{side}_layer_speedup": layer_speedup(attack.exit_layers[-1], depth),
        f"{side}_efficacy": efficacy(shares, attack.exit_costs),
        f"{side}_{metric}": scored,
    }


def _share(share: Floats, whole: Floats) -> Floats:
    """`share / whole`, NaN where the whole is not positive."""
    return np.divide(share, whole, out=np.full(np.broadcast(share, whole).shape, np.nan), where=whole > 0)


def _mean(values: Floats, weights: Weights) -> Floats:
    """Weighted means `(resamples,)` over the values that are not NaN."""
    there = np.isfinite(values)
    return _share(weights @ np.where(there, values, 0.0), weights @ there.astype(np.float64))
