from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from offramp._core.errors import ConfigError, DataError
from offramp.evaluation.bootstrap import (
    Interval,
    Statistic,
    differences,
    intervals,
    percentile_band,
    replicates,
    resample_weights,
)


def mean_of(values, fingerprint: str = "data") -> Statistic:
    column = np.asarray(values, dtype=float)[:, None]
    return Statistic(("mean",), len(column), fingerprint, lambda w: w @ column / w.sum(axis=1, keepdims=True))


def test_every_resample_draws_as_many_as_there_are() -> None:
    weights = np.concatenate(list(resample_weights(7, 50, seed=3)))
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == 0).any()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.5)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(5.0)
    whole = replicates([mean_of(values)], resamples=20, seed=1)
    monkeypatch.setattr("offramp.evaluation.bootstrap.CHUNK", 15)
    assert len(list(resample_weights(5, 20, seed=1))) == 7
    assert replicates([mean_of(values)], resamples=20, seed=1) == pytest.approx(whole)


def test_same_seed_same_interval_other_seed_another() -> None:
    data = mean_of(np.random.default_rng(0).normal(size=40))
    assert intervals(data, seed=5) == intervals(data, seed=5)
    assert intervals(data, seed=5) != intervals(data, seed=6)


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=80)
    (found,) = intervals(mean_of(values), resamples=4000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.estimate == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03)


def test_coverage_is_near_its_name() -> None:
    hits = 0
    for trial in range(150):
        sample = np.random.default_rng([7, trial]).binomial(1, 0.7, size=120)
        (found,) = intervals(mean_of(sample), resamples=300, seed=trial)
        hits += found.low <= 0.7 <= found.high
    assert 0.88 <= hits / 150 <= 0.99


def test_pairing_makes_differences_of_like_methods_narrow() -> None:
    easy = np.random.default_rng(0).normal(size=300)
    one, other = mean_of(easy + 0.1), mean_of(easy)
    (paired,) = differences(one, other)
    assert (paired.low, paired.estimate, paired.high) == pytest.approx((0.1, 0.1, 0.1))
    assert paired.decided
    (alone,) = intervals(one)
    assert alone.high - alone.low > 0.1
    (nothing,) = differences(one, one)
    assert (nothing.low, nothing.high, nothing.decided) == (0, 0, False)


def test_models_are_averaged_or_drawn_too() -> None:
    values = np.random.default_rng(0).normal(size=200)
    seeds = [mean_of(values + shift) for shift in (-1.0, 0.0, 1.0)]
    (averaged,) = intervals(seeds)
    (alone,) = intervals(mean_of(values))
    assert (averaged.low, averaged.high) == pytest.approx((alone.low, alone.high))
    (nested,) = intervals(seeds, over="nested")
    assert nested.estimate == pytest.approx(averaged.estimate)
    assert nested.high - nested.low > 3 * (averaged.high - averaged.low)
    # Model i of one method goes with model i of the other: a constant lead stays constant.
    (lead,) = differences([mean_of(values + shift + 0.5) for shift in (-1.0, 0.0, 1.0)], seeds, over="nested")
    assert (lead.low, lead.high) == pytest.approx((0.5, 0.5))


def test_undefined_resamples_are_left_out() -> None:
    drawn = np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan], [np.inf, np.nan]])
    low, high = percentile_band(drawn)
    assert (low[0], high[0]) == pytest.approx((1.05, 2.95))
    assert np.isnan([low[1], high[1]]).all()


def test_interval_reads_well() -> None:
    assert str(Interval("x", 0.91234, 0.9, 0.925)) == "0.9123 [0.9, 0.925]"
    assert Interval("x", -1, -2, -0.1).decided
    assert not Interval("x", np.nan, np.nan, np.nan).decided


def test_unlike_data_are_not_paired() -> None:
    with pytest.raises(
        DataError, match=r"same examples on both sides, got 3 of data data and 3 of data other"
    ):
        differences(mean_of([1, 2, 3]), mean_of([1, 2, 3], "other"))
    with pytest.raises(DataError, match=r"same examples on both sides, got 3 .* and 2 "):
        intervals([mean_of([1, 2, 3]), mean_of([1, 2])])
    with pytest.raises(DataError, match="at least one model"):
        intervals([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "at least one example and one resample, got 3 and 0"),
        ({"over": "both"}, "over='averaged' or over='nested', got 'both'"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        intervals(mean_of([1, 2, 3]), **options)
