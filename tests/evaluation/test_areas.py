from __future__ import annotations

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.evaluation import RANGES, area, area_statistic, speed_accuracy
from offramp.evaluation.arrow_tables import table
from offramp.evaluation.curves import Curve, mean_heights
from tests.evaluation.made_up import model_trace


def curve_of(costs, scores, floor: float) -> Curve:
    return Curve(
        table({"point": ["sweep"] * len(costs), "cost": costs, "score": scores}),
        "confidence",
        "accuracy",
        floor,
    )


def test_area_by_hand() -> None:
    # From (0, .5) straight to (.5, .7), then to (1, .9).
    curve = curve_of([1.0, 0.5], [0.9, 0.7], 0.5)
    assert area(curve) == pytest.approx(0.7)
    assert area(curve, (0, 0.5)) == pytest.approx(0.6)
    assert area(curve, (0.5, 1)) == pytest.approx(0.8)
    assert area(curve, (0.25, 0.75)) == pytest.approx((0.6 + 0.7) / 2 / 2 + (0.7 + 0.8) / 2 / 2)


def test_beyond_the_dearest_point_the_curve_is_flat() -> None:
    curve = curve_of([0.2, 0.4], [0.6, 0.8], 0.5)
    assert area(curve, (0.5, 1)) == pytest.approx(0.8)
    assert area(curve, (0.3, 0.5)) == pytest.approx((0.75 * 0.1 + 0.8 * 0.1) / 0.2)


def test_a_method_that_cannot_get_cheap_pays_for_it() -> None:
    # Same scores where both can go; only the first has anything between 0 and .4.
    able, unable = curve_of([0.1, 0.4, 1], [0.7, 0.8, 0.9], 0.5), curve_of([0.4, 1], [0.8, 0.9], 0.5)
    assert area(able, (0.4, 1)) == pytest.approx(area(unable, (0.4, 1)))
    assert area(able, (0, 0.4)) > area(unable, (0, 0.4)) == pytest.approx(0.65)


def test_costs_above_one_lie_outside_the_range() -> None:
    cascade = curve_of([0.5, 1.5], [0.7, 0.9], 0.5)
    assert area(cascade, (0.5, 1)) == pytest.approx(0.75)
    assert area(cascade, (1, 2)) == pytest.approx((0.8 + 0.9) / 2 * 0.5 + 0.9 * 0.5)


def test_equal_costs_and_dips_are_taken_as_they_are() -> None:
    assert area(curve_of([0.5, 0.5, 1], [0.6, 0.8, 0.8], 0.6)) == pytest.approx(0.7)
    dip = curve_of([0.5, 1.0], [0.9, 0.7], 0.5)  # no hull: the loss beyond the best point counts
    assert area(dip, (0.5, 1)) == pytest.approx(0.8)


def test_area_equals_a_slow_twin() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        costs, scores = np.sort(random.uniform(0, 1.4, size=6)), random.uniform(0.4, 1, size=6)
        low, high = np.sort(random.uniform(0, 1.2, size=2))
        grid = np.linspace(low, high, 20_001)
        expected = np.interp(grid, [0, *costs], [0.4, *scores]).mean()
        assert area(curve_of(costs, scores, 0.4), (low, high)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("cost_range", [(0.5, 0.5), (-0.1, 1), (1, 0), (0, np.nan)])
def test_senseless_ranges_are_refused(cost_range) -> None:
    with pytest.raises(ConfigError, match="0 <= lowest < highest"):
        mean_heights(np.zeros((1, 1)), np.zeros((1, 1)), cost_range)


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_statistic_on_the_data_as_they_are_is_the_area(metric: str) -> None:
    trace = model_trace()
    statistic = area_statistic(trace, "confidence", metric=metric)
    curve = speed_accuracy(trace, "confidence", metric=metric)
    assert statistic.names == ("fast", "slow", "whole") == tuple(RANGES)
    assert statistic.exact() == pytest.approx([area(curve, limits) for limits in RANGES.values()])


def test_statistic_on_a_resample_is_the_area_of_the_resampled_trace() -> None:
    trace = model_trace(examples=50)
    rows = np.random.default_rng(0).integers(50, size=50)
    weights = np.bincount(rows, minlength=50)[None].astype(float)
    drawn = area_statistic(trace, "confidence", points=1000).values(weights)[0]
    again = area_statistic(trace.take(rows), "confidence", points=1000).exact()
    assert drawn == pytest.approx(again, abs=0.01)  # the thresholds and the floor's class differ a little
