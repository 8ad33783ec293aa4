"""Gradient conflict in the records of a sweep, and how it relates to what the separate classifiers gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.seeding import generator
from offramp.evaluation.arrow_tables import floats, from_rows, rows_where
from offramp.evaluation.bootstrap import percentile_band
from offramp.evaluation.conflict import Conflict, conflict, exit_agreement
from offramp.metrics import score
from offramp.studies.training.results import Result
from offramp.training.gradient_conflict.gradient_products import FILE, Products, read_products

if TYPE_CHECKING:
    import pyarrow as pa

SEPARATE = "multi_model"  # the strategy without conflict: its exits share nothing
POINTS = ("backbone", "method", "moment", "task", "train_size", "seed", "exit_layer", "cosine", "gap")
RELATION = ("backbone", "method", "moment", "correlation", "low", "high", "models")


@dataclass(frozen=True)
class ConflictStudy:
    """Conflict over the models of a sweep.

    Attributes:
        maps: by encoder and method, then by moment (such as "50 % of training"): over all tasks, seeds and batches.
        points: a row an exit, model and moment: cosine of the exit's gradient with the sum of the others', averaged
            over the layers it shares, and what the separate classifier of the same task and seed scores more;
            columns `POINTS`.
        relation: Spearman's correlation of the two over exits and models, intervals over models: columns `RELATION`.
    """

    maps: dict[tuple[str, str], dict[str, Conflict]]
    points: pa.Table
    relation: pa.Table


def conflict_study(results: Sequence[Result], *, resamples: int = 1000) -> ConflictStudy:
    """What the cells of a sweep say about conflict; empty where it was not measured.

    Args:
        results: one an encoder, task, size, method and seed, such as `MethodStudy.compared`.
        resamples: of the bootstrap over models.
    """
    measured: dict[tuple[str, str, str], list[tuple[Result, Products]]] = {}
    for one in results:
        products = read_products(one.folder / FILE)
        for step, found in products.items():
            if not np.triu(found, k=1).any():  # exits that share no gradient, such as those of `sweet`
                continue
            moment = _moment(step, list(products), one.conflict)
            measured.setdefault((one.backbone, one.method, moment), []).append((one, found))
    maps: dict[tuple[str, str], dict[str, Conflict]] = {}
    for (backbone, method, moment), group in measured.items():
        layers = group[0][0].trace.exit_layers
        together = np.concatenate([found for _, found in group])
        maps.setdefault((backbone, method), {})[moment] = conflict(together, layers)
    points = from_rows(POINTS, list(_points(results, measured)))
    return ConflictStudy(maps, points, _relation(points, resamples))


def _moment(step: int, steps: Sequence[int], shares: Sequence[float]) -> str:
    """Which of the shares of the training that were asked for a step is: shares are rounded to whole steps."""
    total = max(*steps, 1) / (max(shares, default=0) or 1)
    share = min(shares, key=lambda asked: abs(asked - step / total), default=step / total)
    return f"{share:.0%} of training".replace("%", " %")


def _points(
    results: Sequence[Result], measured: dict[tuple[str, str, str], list[tuple[Result, Products]]]
) -> list[tuple[object, ...]]:
    separate = {_place(one): _scores(one) for one in results if one.strategy == SEPARATE}
    rows: list[tuple[object, ...]] = []
    for key, group in measured.items():
        for one, products in group:
            if _place(one) not in separate:
                continue
            cosines = exit_agreement(products, one.trace.exit_layers)
            gaps = separate[_place(one)] - _scores(one)
            told = (*key, one.task, one.train_size, one.seed)
            exits = zip(one.trace.exit_layers, cosines.tolist(), gaps.tolist(), strict=True)
            rows += [(*told, *exit) for exit in exits]
    return rows


def _place(one: Result) -> tuple[object, ...]:
    return one.backbone, one.task, one.train_size, one.seed, one.trace.exit_layers


def _scores(one: Result) -> NDArray[np.float64]:
    labels, answers = one.trace.require_labels(), one.trace.predictions()
    return np.array([score(one.metric, labels, answers[:, k]) for k in range(one.trace.exits)])


def _relation(points: pa.Table, resamples: int) -> pa.Table:
    """Correlation by encoder, method and moment; models are drawn with replacement, with all their exits."""
    keys = dict.fromkeys(zip(*(points[name].to_pylist() for name in RELATION[:3]), strict=True))
    rows = []
    for key in keys:
        some = points
        for name, value in zip(RELATION[:3], key, strict=True):
            some = rows_where(some, name, value)
        models = list(zip(*(some[n].to_pylist() for n in ("task", "train_size", "seed")), strict=True))
        names = list(dict.fromkeys(models))
        pairs = np.column_stack([floats(some, "cosine"), floats(some, "gap")])
        by_model = [pairs[[m == name for m in models]] for name in names]
        random = generator(0, "conflict", *map(str, key))
        drawn = [
            _spearman(np.concatenate([by_model[i] for i in random.integers(len(names), size=len(names))]))
            for _ in range(resamples)
        ]
        low, high = percentile_band(np.array(drawn)[:, None])
        rows.append((*key, _spearman(pairs), float(low[0]), float(high[0]), len(names)))
    return from_rows(RELATION, rows)


def _spearman(pairs: NDArray[np.float64]) -> float:
    """Rank correlation of two columns; NaN where one of them never changes."""
    from scipy.stats import spearmanr

    kept = pairs[np.isfinite(pairs).all(axis=1)]
    if len(kept) < 3 or (np.ptp(kept, axis=0) == 0).any():
        return float("nan")
    return float(spearmanr(kept[:, 0], kept[:, 1]).statistic)
