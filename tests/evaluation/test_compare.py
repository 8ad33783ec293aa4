from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offramp._core.errors import ConfigError, DataError
from offramp.criteria import make_criterion
from offramp.evaluation import area, compare, differences, exit_statistic, speed_accuracy
from offramp.evaluation.arrow_tables import floats
from tests.evaluation.made_up import model_trace

TRACES = {
    "joint": model_trace(1, skill=0.9),
    "multi": model_trace(2, skill=1.3, cascade=True),
    "sweet": model_trace(3, skill=1.2),
}
PLACES = ["layer 1", "layer 4", "layer 6", "layer 12", "mean of layers 1, 4, 6, 12", "fast", "slow", "whole"]


def rows_of(comparison, method):
    return {row["place"]: row for row in comparison.scores.to_pylist() if row["method"] == method}


def test_scores_areas_and_differences_to_the_baseline() -> None:
    found = compare(TRACES, resamples=200)
    assert found.baseline == "joint"
    sweet, joint = rows_of(found, "sweet"), rows_of(found, "joint")
    assert list(sweet) == PLACES
    assert all(np.isnan(row["difference"]) for row in joint.values())
    for place in PLACES:
        assert sweet[place]["difference"] == pytest.approx(sweet[place]["score"] - joint[place]["score"])
    curve = speed_accuracy(TRACES["sweet"], "confidence")
    assert sweet["fast"]["score"] == pytest.approx(area(curve, (0, 0.5)))
    expected = differences(exit_statistic(TRACES["sweet"]), exit_statistic(TRACES["joint"]), resamples=200)[1]
    layer4 = sweet["layer 4"]
    assert (layer4["difference_low"], layer4["difference_high"]) == pytest.approx(
        (expected.low, expected.high)
    )
    mean = np.mean([sweet[place]["score"] for place in PLACES[:4]])
    assert sweet["mean of layers 1, 4, 6, 12"]["score"] == pytest.approx(mean)
    assert list(found.curves) == list(TRACES)
    assert floats(found.curves["sweet"][0].sweep, "score").tolist() == floats(curve.sweep, "score").tolist()


def test_who_wins_where() -> None:
    found = compare(TRACES, resamples=200, baseline="sweet")
    winners = {row["place"]: row for row in found.winners.to_pylist()}
    assert list(winners) == PLACES
    assert winners["layer 1"]["best"] != "joint"
    assert winners["whole"]["best"] == "sweet"  # the cascade pays for its better exits with recomputation
    for row in winners.values():
        assert row["lead"] >= 0
        assert row["lead_low"] <= row["lead"] <= row["lead_high"]
        assert row["decided"] == (row["lead_low"] > 0)


def test_several_models_of_a_method_are_averaged() -> None:
    groups = {"joint": [model_trace(s, skill=0.9) for s in (0, 1)], "sweet": [model_trace(s) for s in (2, 3)]}
    found = compare(groups, resamples=100)
    each = [exit_statistic(trace).exact()[0] for trace in groups["sweet"]]
    assert rows_of(found, "sweet")["layer 1"]["score"] == pytest.approx(np.mean(each))
    assert [len(curves) for curves in found.curves.values()] == [2, 2]
    nested = rows_of(compare(groups, resamples=100, over="nested"), "sweet")["layer 1"]
    averaged = rows_of(found, "sweet")["layer 1"]
    assert nested["high"] - nested["low"] > averaged["high"] - averaged["low"]


def test_methods_with_other_exits_share_only_some_places() -> None:
    found = compare({"four": model_trace(0), "two": model_trace(1, layers=(6, 12))}, resamples=50)
    two = rows_of(found, "two")
    assert list(two) == ["layer 6", "layer 12", "mean of layers 6, 12", "fast", "slow", "whole"]
    assert np.isnan(two["mean of layers 6, 12"]["difference"])
    assert "layer 1" not in found.winners["place"].to_pylist()


def test_each_method_may_have_its_own_rule() -> None:
    rules = {"joint": "patience", "multi": "confidence", "sweet": "entropy"}
    found = compare(TRACES, rules, resamples=20)
    assert {name: curves[0].criterion for name, curves in found.curves.items()} == rules


def test_each_model_may_have_its_own_rule() -> None:
    """What is fitted on calibration data differs between the seeds of a method."""
    traces = {"joint": [model_trace(1), model_trace(4)]}
    fitted = [make_criterion("energy", temperatures=[t] * 4) for t in (0.5, 4.0)]
    both = compare(traces, {"joint": fitted}, resamples=20)
    alone = [compare({"joint": traces["joint"][k]}, fitted[k], resamples=20) for k in range(2)]
    whole = [rows_of(found, "joint")["whole"]["score"] for found in (both, *alone)]
    assert whole[0] == pytest.approx((whole[1] + whole[2]) / 2)


def test_a_lone_method_has_no_rival() -> None:
    found = compare({"joint": TRACES["joint"]}, resamples=20)
    assert found.scores.num_rows == len(PLACES)
    assert found.winners.num_rows == 0
    assert found.winners.column_names[0] == "place"


def test_what_cannot_be_compared_is_refused() -> None:
    joint = TRACES["joint"]
    with pytest.raises(ConfigError, match=r"unknown baseline 'swet'. Did you mean 'sweet'"):
        compare(TRACES, baseline="swet")
    with pytest.raises(DataError, match=r"cannot compare 'joint 0' with 'other 0': their data differ"):
        compare({"joint": joint, "other": replace(joint, fingerprint="else")})
    with pytest.raises(DataError, match="different exits"):
        compare({"joint": [joint, model_trace(layers=(6, 12))]})
    with pytest.raises(DataError, match="at least one trace"):
        compare({})
