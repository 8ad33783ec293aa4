"""Gradient conflict in the records of a sweep, and how it relates to what the separate classifiers gain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp._core.seeding import generator
from offramp.evaluation.bootstrap import percentile_band
from offramp.evaluation.conflict import Conflict, conflict, exit_agreement
from offramp.studies.training.results import Result
from offramp.training.strategies import STRATEGIES

GROUP = ["backbone", "method", "moment"]
MODEL = ["task", "train_size", "seed"]
POINTS = (*GROUP, *MODEL, "exit_layer", "cosine", "gap")
RELATION = (*GROUP, "correlation", "low", "high", "models")


@dataclass(frozen=True)
class ConflictStudy:
    """Conflict over the models of a sweep.

    Attributes:
        maps: by encoder and method, then by moment (such as "50 % of training"): over all tasks, seeds and batches.
        points: a row per exit, model and moment: cosine of the exit's gradient with the sum of the others', averaged
            over the layers it shares, and how much more the separate classifier of the same task and seed scores;
            columns `POINTS`.
        relation: Spearman's correlation of the two over exits and models, intervals over models: columns `RELATION`.
    """

    maps: dict[tuple[str, str], dict[str, Conflict]]
    points: pd.DataFrame
    relation: pd.DataFrame


def conflict_study(results: Sequence[Result], *, resamples: int = 1000) -> ConflictStudy:
    """The gradient conflict in the trials of a sweep; empty where it was not measured.

    Args:
        results: one per encoder, task, size, method and seed, such as `MethodStudy.compared`.
        resamples: of the bootstrap over models.
    """
    measured = pd.DataFrame(_measured(results), columns=[*GROUP, "result", "products"])
    alone = [name for name, strategy in STRATEGIES.items() if strategy.trains_alone]
    separate = {_pair(result): np.array(result.scores) for result in results if result.strategy in alone}
    maps: dict[tuple[str, str], dict[str, Conflict]] = {}
    rows: list[tuple[object, ...]] = []
    for (backbone, method, moment), group in measured.groupby(GROUP, sort=False):
        layers = group["result"].iloc[0].trace.exit_layers
        maps.setdefault((backbone, method), {})[moment] = conflict(
            np.concatenate(group["products"].tolist()), layers
        )
        for result, products in zip(group["result"], group["products"], strict=True):
            if _pair(result) in separate:
                cosines = exit_agreement(products, result.trace.exit_layers)
                gaps = separate[_pair(result)] - np.array(result.scores)
                model = (result.setting.task, result.setting.train_size, result.seed)
                exits = zip(result.trace.exit_layers, cosines, gaps, strict=True)
                rows += [(backbone, method, moment, *model, *exit) for exit in exits]
    points = pd.DataFrame(rows, columns=list(POINTS)).astype({"train_size": "Int64"})
    return ConflictStudy(maps, points, _relation(points, resamples))


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


def _pair(result: Result) -> tuple[object, ...]:
    return result.setting, result.seed, result.trace.exit_layers


def _relation(points: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Correlation by encoder, method and moment; models are drawn with replacement, with all their exits."""
    rows = []
    for key, group in points.groupby(GROUP, sort=False):
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
