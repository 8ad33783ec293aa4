from __future__ import annotations

import sys

import numpy as np
import pytest

from offramp._core.errors import ConfigError, CriterionError, DataError, MissingExtraError
from offramp.criteria import make_criterion, with_threshold
from offramp.engine.policy import Policy
from offramp.evaluation import speed_accuracy, stack_curves, unstack_curves
from offramp.evaluation.arrow_tables import floats
from offramp.evaluation.operating_points import policy_statistic, sweep_thresholds
from offramp.metrics import score
from tests.evaluation.made_up import model_trace, regression_trace, trace_of

# Two exits at layers 1 and 4. Confidence at the first .9 .8 .6, right yes, no, yes; the last is always right.
HAND = trace_of([[0.9, 0.99], [0.8, 0.99], [0.6, 0.99]], [[1, 1], [0, 1], [1, 1]], (1, 4))


def test_curve_by_hand() -> None:
    curve = speed_accuracy(HAND, "confidence")
    sweep = curve.sweep
    assert floats(sweep, "score").tolist() == pytest.approx([2 / 3, 2 / 3, 1, 1])
    assert floats(sweep, "cost").tolist() == pytest.approx([3 / 12, 6 / 12, 9 / 12, 1])
    assert floats(sweep, "depth").tolist() == [1, 2, 3, 4]
    assert floats(sweep, "layer_speedup").tolist() == pytest.approx([4, 2, 4 / 3, 1])
    assert sweep["shares"].to_pylist() == [
        pytest.approx(s) for s in ([1, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0, 1])
    ]
    thresholds = floats(sweep, "threshold")
    assert 0.6 < thresholds[1] <= 0.8 < thresholds[2] <= 0.9
    assert floats(curve.static, "score").tolist() == pytest.approx([2 / 3, 1])
    assert floats(curve.static, "cost").tolist() == [0.25, 1]
    assert curve.static["shares"].to_pylist() == [[1, 0], [0, 1]]
    assert curve.floor == 1  # all labels are alike: the commonest answer is always right
    assert np.isnan(floats(curve.table, "low")).all()


def test_cost_is_a_ratio_of_sums_and_a_cascade_exceeds_one() -> None:
    costs = np.array([[1.0, 5.0], [10.0, 50.0]])
    trace = trace_of(
        [[0.9, 0.9], [0.6, 0.9]], [[1, 1], [1, 1]], (1, 4), flops=costs, full_flops=np.array([4.0, 40.0])
    )
    assert floats(speed_accuracy(trace, "confidence").sweep, "cost").tolist() == pytest.approx(
        [11 / 44, 51 / 44, 55 / 44]
    )


@pytest.mark.parametrize(
    ("criterion", "metric"),
    [("confidence", "f1"), ("entropy", "accuracy"), ("patience", "matthews"), ("vote", "macro_f1")],
)
def test_curve_equals_policies_applied_one_by_one(criterion: str, metric: str) -> None:
    trace, temperatures = model_trace(examples=60), (2.0, 1.5, 1.2, 0.7)
    curve = speed_accuracy(trace, criterion, metric=metric, temperatures=temperatures, points=15)
    rows = curve.sweep.to_pylist()
    assert len(rows) <= 15
    for row in rows:
        rule = with_threshold(make_criterion(criterion), row["threshold"])
        decisions = Policy(rule, trace.exit_layers, temperatures).decide(trace)
        assert row["score"] == pytest.approx(score(metric, trace.labels, decisions.prediction))
        assert row["cost"] == pytest.approx(decisions.flops.mean() / trace.full_flops.mean())
        assert row["depth"] == pytest.approx(decisions.layer.mean())
        assert row["shares"] == pytest.approx(np.bincount(decisions.exit, minlength=4) / len(trace))


def test_sweep_goes_from_cheapest_to_dearest() -> None:
    for criterion in ("confidence", "entropy", "patience", "energy"):
        costs = floats(speed_accuracy(model_trace(), criterion).sweep, "cost")
        assert (np.diff(costs) >= 0).all()
        assert costs[-1] == pytest.approx(1)


def test_temperatures_reach_the_energy_rule() -> None:
    trace, temperatures = model_trace(examples=40), (4.0, 2.0, 1.0, 0.5)
    given = sweep_thresholds(trace, make_criterion("energy", temperatures=temperatures), temperatures)
    assert (sweep_thresholds(trace, "energy", temperatures).exits == given.exits).all()
    assert not np.array_equal(sweep_thresholds(trace, "energy").exits, given.exits)


def test_band_holds_the_curve_and_is_the_policy_interval() -> None:
    trace = model_trace()
    curve = speed_accuracy(trace, "confidence", resamples=400, points=10)
    low, middle, high = (floats(curve.table, name) for name in ("low", "score", "high"))
    assert ((low <= middle) & (middle <= high)).all()
    row = curve.sweep.to_pylist()[4]
    policy = Policy(make_criterion("confidence", row["threshold"]), trace.exit_layers)
    values = policy_statistic(trace, policy)
    exact = dict(zip(values.names, values.exact(), strict=True))
    assert (exact["score"], exact["cost"], exact["depth"]) == pytest.approx(
        (row["score"], row["cost"], row["depth"])
    )
    assert exact["drop"] == pytest.approx(exact["full"] - exact["score"])
    assert exact["layer_speedup"] == pytest.approx(12 / exact["depth"])


def test_regression_curve() -> None:
    trace = regression_trace()
    curve = speed_accuracy(trace, make_criterion("patience", tolerance=0.5), metric="pearson")
    assert floats(curve.static, "score")[-1] > 0.95
    assert curve.floor == 0  # a constant correlates with nothing
    with pytest.raises(ConfigError, match="'accuracy' is for classification"):
        speed_accuracy(trace, "patience")
    with pytest.raises(CriterionError, match="'confidence' needs class probabilities"):
        speed_accuracy(trace, "confidence", metric="pearson")


def test_measured_times_are_noted_at_their_threshold() -> None:
    curve = speed_accuracy(HAND, "confidence").with_times({0.7: 1.8, 2.0: 0.9})
    times = floats(curve.table, "time_speedup")
    assert times[1] == 1.8
    assert times[3] == 0.9
    assert np.isnan(times[[0, 2, 4, 5]]).all()


def test_times_are_noted_for_a_rule_whose_thresholds_end_at_the_largest_floats() -> None:
    curve = speed_accuracy(HAND, "energy")
    thresholds = floats(curve.sweep, "threshold")
    times = floats(curve.with_times({thresholds[0]: 3.0, thresholds[-1]: 0.9}).sweep, "time_speedup")
    assert (times[0], times[-1]) == (3.0, 0.9)


def test_stacked_curves_come_apart_again() -> None:
    curves = {
        "EE": [speed_accuracy(model_trace(s), "confidence") for s in (0, 1)],
        "S": speed_accuracy(HAND, "margin"),
    }
    stacked = stack_curves(curves)
    assert stacked.column_names[:5] == ["method", "model", "criterion", "metric", "floor"]
    apart = unstack_curves(stacked)
    assert list(apart) == ["EE", "S"]
    assert [c.table.num_rows for c in apart["EE"]] == [c.table.num_rows for c in curves["EE"]]
    assert apart["S"][0].table.to_pylist()[:4] == [
        {**row, "low": pytest.approx(np.nan, nan_ok=True), "high": pytest.approx(np.nan, nan_ok=True)}
        | {"time_speedup": pytest.approx(np.nan, nan_ok=True)}
        for row in curves["S"].table.to_pylist()[:4]
    ]
    assert (apart["S"][0].criterion, apart["S"][0].metric, apart["S"][0].floor) == ("margin", "accuracy", 1)
    with pytest.raises(DataError, match="needs the columns floor"):
        unstack_curves(stacked.drop_columns(["floor"]))


def test_what_cannot_be_swept_is_refused() -> None:
    with pytest.raises(CriterionError, match="Did you mean 'confidence'"):
        speed_accuracy(HAND, "confidense")
    with pytest.raises(CriterionError, match="no threshold to choose"):
        speed_accuracy(HAND, "fixed")
    with pytest.raises(DataError, match="labelled data"):
        speed_accuracy(trace_of([[0.9, 0.9]], [[1, 1]], (1, 4), labels=None), "confidence")
    with pytest.raises(DataError, match="empty trace"):
        speed_accuracy(HAND.take(slice(0, 0)), "confidence")
    with pytest.raises(ConfigError, match="one temperature for each of 2 exits, got 1"):
        speed_accuracy(HAND, "confidence", temperatures=[1.0])


def test_plot_draws_line_band_and_points() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    curve = speed_accuracy(HAND, "confidence", resamples=50)
    assert curve.plot(ax, label="toy") is ax
    line, points = ax.lines
    assert line.get_label() == "toy"
    assert len(points.get_xdata()) == 2
    assert len(ax.collections) == 1
    assert ax.get_ylabel() == "accuracy"


def test_plot_makes_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    ax = speed_accuracy(HAND, "margin").plot()
    assert ax.lines[0].get_label() == "margin"
    pyplot.close(ax.figure)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="matplotlib is needed"):
        speed_accuracy(HAND, "margin").plot()
