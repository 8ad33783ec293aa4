"""Paired bootstrap: intervals on scores, areas and their differences over the same examples.

A resample is a row of weights: how often each example was drawn. Means are then matrix products, and a thousand
resamples of a whole threshold sweep take a fraction of a second. Two methods are paired by the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError, DataError
from offramp._core.seeding import generator
from offramp.evaluation.arrow_tables import from_rows

if TYPE_CHECKING:
    import pyarrow as pa

Weights = NDArray[np.float64]  # (resamples, examples)
Models = Literal["averaged", "nested"]

INTERVALS = ("name", "estimate", "low", "high")
LEVEL = 0.95  # nominal coverage of all intervals
CHUNK = 2**22  # weights held at once: 32 MiB


@dataclass(frozen=True)
class Statistic:
    """Numbers that depend on a weighting of the examples.

    Attributes:
        names: of the numbers, one per column.
        examples: how many examples are weighted.
        fingerprint: of the data; only statistics of the same data are paired.
        values: weights `(resamples, examples)` to numbers `(resamples, columns)`.
    """

    names: tuple[str, ...]
    examples: int
    fingerprint: str
    values: Callable[[Weights], NDArray[np.float64]]

    def exact(self) -> NDArray[np.float64]:
        """The numbers `(columns,)` on the original data."""
        return self.values(np.ones((1, self.examples)))[0]


Group = Statistic | Sequence[Statistic]


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % percentile-bootstrap interval.

    Attributes:
        name: of the quantity.
        estimate: the value on the original data.
        low, high: the ends of the interval; NaN where it was undefined in every resample.
    """

    name: str
    estimate: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interval_table(intervals: Iterable[Interval]) -> pa.Table:
    """Intervals as rows `name`, `estimate`, `low`, `high`, for a run record."""
    return from_rows(INTERVALS, [(i.name, i.estimate, i.low, i.high) for i in intervals])


def resample_weights(examples: int, resamples: int, seed: int) -> Iterator[Weights]:
    """Weights of bootstrap resamples, in chunks `(rows, examples)`; every row sums to `examples`."""
    if examples < 1 or resamples < 1:
        raise ConfigError(
            f"expected at least one example and one resample, got {examples} and {resamples}: "
            "check the data and 'resamples'"
        )
    random = generator(seed, "bootstrap", examples)
    step = max(1, CHUNK // examples)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = random.integers(examples, size=(rows, examples)) + examples * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * examples)
        yield counts.reshape(rows, examples).astype(np.float64)


def replicates(
    models: Sequence[Statistic], *, resamples: int = 1000, seed: int = 0, over: Models = "averaged"
) -> NDArray[np.float64]:
    """Bootstrap replicates of a statistic, averaged over several models (seeds) of one method.

    Args:
        models: the same statistic of each model, over the same examples.
        resamples: how many resamples to draw.
        seed: the same seed and number of examples give the same draws, which pairs methods.
        over: "averaged" draws examples only: the interval is about these models. "nested" draws models too, with
            replacement: the interval is about models trained in the same way. Methods with equally many models
            share these draws, so model i is paired with model i.

    Returns:
        `(resamples, columns)`.

    Source: Efron and Tibshirani 1993, chapters 6 and 8.
    """
    count = len(models)
    chosen = np.full((resamples, count), 1 / count)  # how much each model counts in each resample
    if over == "nested":
        chosen = generator(seed, "models", count).multinomial(count, chosen[0], size=resamples) / count
    elif over != "averaged":
        raise ConfigError(f"expected over='averaged' or over='nested', got {over!r}")
    blocks, done = [], 0
    for weights in resample_weights(models[0].examples, resamples, seed):
        values = np.stack([model.values(weights) for model in models])  # (models, rows, columns)
        rows = chosen[done : done + len(weights)]
        blocks.append(np.einsum("rm,mrc->rc", rows, values))
        done += len(weights)
    return np.concatenate(blocks)


def intervals(
    models: Group, *, resamples: int = 1000, seed: int = 0, over: Models = "averaged"
) -> tuple[Interval, ...]:
    """95 % percentile-bootstrap intervals of a statistic, one per column, without the resamples in which it is NaN.

    Args:
        models: a statistic, or one per model (seed) of a method; their mean is estimated.
        resamples, seed, over: as in `replicates`.

    Raises:
        DataError: the models were not measured on the same examples.
    """
    group = _group(models)
    estimate = np.mean([model.exact() for model in group], axis=0)
    drawn = replicates(group, resamples=resamples, seed=seed, over=over)
    return _percentiles(group[0].names, estimate, drawn)


def differences(
    a: Group, b: Group, *, resamples: int = 1000, seed: int = 0, over: Models = "averaged"
) -> tuple[Interval, ...]:
    """95 % paired-bootstrap intervals of `a - b` over the same examples, one per column.

    Args:
        a, b: as `models` in `intervals`; the two may have different numbers of models.
        resamples, seed, over: as in `replicates`.

    Raises:
        DataError: a and b were not measured on the same examples, or have different columns.
    """
    first, second = _group(a), _group(b)
    _check_paired([*first, *second])
    estimate = np.mean([m.exact() for m in first], axis=0) - np.mean([m.exact() for m in second], axis=0)
    drawn = [replicates(group, resamples=resamples, seed=seed, over=over) for group in (first, second)]
    return _percentiles(first[0].names, estimate, drawn[0] - drawn[1])


def percentile_band(drawn: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends `(columns,)` of the central 95 % of replicates `(resamples, columns)`, without those that are NaN."""
    tail = (1 - LEVEL) / 2
    ends = np.full((2, drawn.shape[1]), np.nan)
    some = np.isfinite(drawn).any(axis=0)
    finite = np.where(np.isfinite(drawn), drawn, np.nan)[:, some]
    ends[:, some] = np.nanquantile(finite, [tail, 1 - tail], axis=0)
    return ends[0], ends[1]


def _percentiles(
    names: tuple[str, ...], estimate: NDArray[np.float64], drawn: NDArray[np.float64]
) -> tuple[Interval, ...]:
    low, high = percentile_band(drawn)
    columns = zip(names, estimate, low, high, strict=True)
    return tuple(Interval(name, float(e), float(lo), float(hi)) for name, e, lo, hi in columns)


def _group(models: Group) -> Sequence[Statistic]:
    group = [models] if isinstance(models, Statistic) else list(models)
    if not group:
        raise DataError("expected at least one model, got none: pass the statistic of at least one trace")
    _check_paired(group)
    return group


def _check_paired(models: Sequence[Statistic]) -> None:
    """Raise unless all statistics have the same examples and columns."""
    first = models[0]
    for other in models[1:]:
        if (other.examples, other.fingerprint) != (first.examples, first.fingerprint):
            raise DataError(
                f"a paired bootstrap needs the same examples on both sides, got {first.examples} of data "
                f"{first.fingerprint or '?'} and {other.examples} of data {other.fingerprint or '?'}: "
                "trace all models on the same split"
            )
        if other.names != first.names:
            raise DataError(f"expected the columns {first.names} on both sides, got {other.names}")
