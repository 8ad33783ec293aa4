"""Tuning against its slow twin: try every threshold, see what the policy decides, pick by the definition."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import CalibrationError, ConfigError, CriterionError
from offramp.calibration import fit_temperatures, refuse_if_calibrated, tune
from offramp.calibration.sweeps import totals
from offramp.criteria import CRITERIA, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.metrics import score
from tests.calibration.calibration_traces import classifier, regressor

TUNABLE = [name for name, rule in CRITERIA.items() if rule.tunable]


def measure(policy, trace, metric):
    """Mean cost as a share of the full model's, and the metric."""
    decisions = policy.decide(trace)
    cost = decisions.flops.mean() / trace.full_flops.mean()
    return cost, score(metric, trace.labels, decisions.prediction)


def brute_force(policy, trace, metric, *, drop=None, budget=None):
    """Best (cost, metric) over every score as threshold, and both ends."""
    table = scores(policy.criterion, trace.scaled(policy.temperatures))
    low, high = policy.criterion.threshold_range
    values = range(1, trace.exits + 1) if policy.criterion.whole else [low, *np.unique(table), high]
    criteria = [with_threshold(policy.criterion, t) for t in values]
    found = [measure(replace(policy, criterion=c), trace, metric) for c in criteria]
    if drop is not None:
        full = score(metric, trace.labels, trace.predictions()[:, -1])
        return min((c, -m) for c, m in found if m >= full - drop - 1e-12)
    return min(((-m, c) for c, m in found if c <= budget + 1e-12), default=(None, None))[::-1]


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("name", TUNABLE)
def test_the_cheapest_threshold_within_the_drop(name, cascade):
    trace = classifier(seed=3, n=120, cascade=cascade)
    for drop in (0.0, 0.03, 0.1, 1.0):
        policy = tune(trace, name, max_accuracy_drop=drop)
        cost, value = brute_force(policy, trace, "accuracy", drop=drop)
        assert measure(policy, trace, "accuracy") == pytest.approx((cost, -value))
        assert (policy.target["cost"], policy.target["reached"]) == pytest.approx((cost, -value))


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("name", TUNABLE)
def test_the_most_accurate_threshold_within_the_budget(name, cascade):
    trace = classifier(seed=4, cascade=cascade)
    for budget in (0.5, 0.9, 1.0, *((3.0,) if cascade else ())):
        try:
            policy = tune(trace, name, max_cost=budget)
        except CalibrationError:  # rules that count cannot leave soon enough
            assert name in ("patience", "patience_confidence")
            policy = tune(trace, name, max_cost=3.0 if cascade else 1.0)
            assert brute_force(policy, trace, "accuracy", budget=budget) == (None, None)
            continue
        cost, value = brute_force(policy, trace, "accuracy", budget=budget)
        assert measure(policy, trace, "accuracy") == pytest.approx((cost, -value))
        assert policy.target["cost"] <= budget + 1e-12


@pytest.mark.parametrize("metric", ["f1", "macro_f1", "matthews"])
def test_other_metrics(metric, monkeypatch):
    monkeypatch.setattr("offramp.calibration.thresholds.FEW", 0)
    trace = classifier(seed=5, n=40, exits=3, classes=2)
    for target in ({"drop": 0.05}, {"budget": 0.7}):
        named = {"max_accuracy_drop": target.get("drop"), "max_cost": target.get("budget")}
        policy = tune(trace, "entropy", metric=metric, **named)
        cost, value = brute_force(policy, trace, metric, **target)
        assert measure(policy, trace, metric) == pytest.approx((cost, -value))


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_regression(metric):
    trace = regressor(n=120)
    rule = make_criterion("patience", tolerance=0.8)
    policy = tune(trace, rule, max_accuracy_drop=0.02, metric=metric)
    cost, value = brute_force(policy, trace, metric, drop=0.02)
    assert measure(policy, trace, metric) == pytest.approx((cost, -value))
    assert cost < 1
    assert policy.temperatures is None
    assert policy.criterion.tolerance == 0.8


@given(seed=st.integers(0, 10**6), name=st.sampled_from(TUNABLE))
@settings(max_examples=60, deadline=None)
def test_totals_are_the_sums_at_the_exits_taken(seed, name):
    trace = classifier(seed, n=15, cascade=bool(seed % 2))
    rule = make_criterion(name)
    table = np.round(scores(rule, trace), 1)  # ties
    grid = np.append(threshold_grid(rule, table), np.unique(table))
    if rule.whole:
        grid = grid[grid >= 1]
    exits = [first_exit(with_threshold(rule, np.clip(t, *rule.threshold_range)), table) for t in grid]
    expected = [trace.flops[np.arange(15), exit].sum() for exit in exits]
    assert totals(trace.flops, rule, table, grid) == pytest.approx(expected)


def test_what_the_policy_says():
    trace = classifier(n=120)
    policy = tune(trace, "confidence", max_accuracy_drop=0.02)
    decisions = policy.decide(trace)
    assert policy.calibrated_on == "calibration data"
    assert policy.exit_layers == (1, 3, 5, 7)
    assert policy.temperatures == fit_temperatures(trace)
    assert policy.target == {
        "max_accuracy_drop": 0.02,
        "metric": "accuracy",
        "full": pytest.approx((trace.predictions()[:, -1] == trace.labels).mean()),
        "reached": pytest.approx((decisions.prediction == trace.labels).mean()),
        "cost": pytest.approx(decisions.flops.sum() / trace.full_flops.sum()),
        "depth": pytest.approx(decisions.layer.mean()),
        "examples": 120,
        "disagreement": pytest.approx((decisions.prediction != trace.predictions()[:, -1]).mean()),
        "exit_counts": [int((decisions.exit == exit).sum()) for exit in range(4)],
    }
    assert 0 < policy.target["cost"] < 1
    assert policy.target["reached"] >= policy.target["full"] - 0.02 - 1e-12
    assert tune(trace, "confidence", max_cost=0.6, temperatures=False).temperatures is None


def test_cost_is_the_share_of_all_flops():
    # Two lengths: one half costs 1 of 2 early, the other 10 of 20. Half the examples leave at exit 1.
    labels = np.arange(200) % 2
    logits = np.zeros((200, 2, 2), dtype=np.float32)
    logits[np.arange(200), :, labels] = 3.0
    logits[:100, 0] = 0.0
    costs = np.where(np.arange(200)[:, None] < 100, [[1.0, 2.0]], [[10.0, 20.0]])
    trace = replace(
        classifier(n=200, exits=2, classes=2),
        logits=logits,
        flops=costs,
        full_flops=costs[:, 1],
        labels=labels,
    )
    policy = tune(trace, "confidence", max_accuracy_drop=0.0, temperatures=False)
    # The short ones go on (2 each), the long ones leave (10 each): 1,200 of 2,200.
    assert policy.target["cost"] == pytest.approx(1200 / 2200)
    assert 0.5 < policy.criterion.threshold < 0.95  # between the two scores, ½ and 1/(1 + e⁻³)


def test_a_cascade_for_which_leaving_late_costs_more_than_the_full_model():
    trace = classifier(n=100, cascade=True)
    tight = tune(trace, "confidence", max_cost=0.3)
    assert tight.decide(trace).flops.sum() <= 0.3 * trace.full_flops.sum()
    exact = tune(trace, "confidence", max_accuracy_drop=0.0)
    assert exact.target["reached"] >= exact.target["full"]
    never = replace(exact, criterion=with_threshold(exact.criterion, 2.0))
    assert measure(never, trace, "accuracy") == (pytest.approx(2.5), exact.target["full"])  # (1+2+3+4)/4
    assert exact.target["cost"] < 2.5


def test_learned_gets_its_ranges_and_energy_its_temperatures():
    trace = classifier()
    learned = tune(trace, make_criterion("learned", low=[0.0] * 4, high=[1.0] * 4), max_cost=0.6).criterion
    assert learned.low == tuple(float(v) for v in trace.gates.min(axis=0))
    assert learned.high == tuple(float(v) for v in trace.gates.max(axis=0))
    energy = tune(trace, "energy", max_cost=0.6)
    assert energy.criterion.temperatures == energy.temperatures
    assert tune(trace, "energy", max_cost=0.6, temperatures=False).criterion.temperatures == ()


def test_options_are_kept_and_whole_thresholds_stay_whole():
    policy = tune(classifier(), make_criterion("patience_confidence", confidence=0.55), max_cost=0.8)
    assert policy.criterion.confidence == 0.55
    assert type(policy.criterion.threshold) is int
    assert type(tune(classifier(), "vote", max_cost=0.8).criterion.threshold) is float


def test_the_order_of_the_examples_does_not_matter():
    trace = classifier(n=80)
    shuffled = trace.take(np.random.default_rng(0).permutation(80))
    a, b = (tune(t, "margin", max_accuracy_drop=0.02) for t in (trace, shuffled))
    assert a.criterion.threshold == pytest.approx(b.criterion.threshold, rel=1e-4)
    assert (a.target["cost"], a.target["reached"]) == pytest.approx((b.target["cost"], b.target["reached"]))


def test_a_policy_can_be_saved_and_gives_the_same_decisions(tmp_path):
    trace = classifier()
    for name in TUNABLE:
        policy = tune(trace, name, max_accuracy_drop=0.05)
        policy.save(tmp_path / "policy.json")
        loaded = type(policy).load(tmp_path / "policy.json")
        assert loaded == policy
        assert (loaded.decide(trace).exit == policy.decide(trace).exit).all()


def test_extreme_logits_can_be_tuned():
    trace = classifier(n=40)
    for top in (1e4, 65504.0, 1e36):
        big = replace(trace, logits=np.sign(trace.logits) * np.float32(top))
        for name in TUNABLE:
            policy = tune(big, name, max_accuracy_drop=0.05)
            assert np.isfinite(policy.criterion.threshold)
            assert np.isfinite(policy.decide(big).score).all()


def test_an_unreachable_budget_says_what_can_be_reached():
    trace = classifier(n=40)
    # Patience leaves at exit 2 of 4 at the earliest: half of the cost is the least there is, if all agree.
    with pytest.raises(
        CalibrationError, match=r"within 0.3 of the full model's: the least is 0\.\d+, with a metric"
    ):
        tune(trace, "patience", max_cost=0.3)


@pytest.mark.parametrize(
    ("n", "metric"),
    [(1, "accuracy"), (2, "accuracy"), (15, "accuracy"), (60, "accuracy"), (5, "macro_f1"), (15, "pearson")],
)
def test_few_examples_keep_one_standard_error(n, metric):
    """The cheapest threshold by its definition, with the standard error of a plain jackknife."""
    trace, name = (
        (regressor(seed=n, n=n), "patience") if metric == "pearson" else (classifier(n, n=n), "confidence")
    )
    for drop in (0.05, 0.3, 1.0):
        policy = tune(trace, name, max_accuracy_drop=drop, metric=metric)
        table = scores(policy.criterion, trace.scaled(policy.temperatures))
        fitting = {}
        for threshold in threshold_grid(policy.criterion, table):
            rule = with_threshold(policy.criterion, threshold)
            exit = first_exit(rule, table)
            labels, answers = trace.labels, trace.predictions()
            early = answers[np.arange(n), exit]
            left = [np.arange(n) % 10 != group for group in range(min(10, n))] if n > 1 else []
            drops = [
                score(metric, labels[k], answers[k, -1]) - score(metric, labels[k], early[k]) for k in left
            ]
            spread = sum((d - np.mean(drops)) ** 2 for d in drops) * (len(drops) - 1) / max(len(drops), 1)
            error = 0.0 if (exit == trace.exits - 1).all() else np.sqrt(spread + 1 / n**2)
            lost = score(metric, labels, answers[:, -1]) - score(metric, labels, early)
            if lost + error <= drop + 1e-12:
                fitting[threshold] = trace.flops[np.arange(n), exit].sum() / trace.full_flops.sum(), error
        cost, error = min(fitting.values())
        assert policy.target["cost"] == pytest.approx(cost)
        assert policy.target["standard_error"] == pytest.approx(error)


@pytest.mark.parametrize("n", [1, 2, 5, 15])
@pytest.mark.parametrize("name", TUNABLE)
def test_few_examples_of_any_kind_can_be_tuned(n, name):
    """One class, ties everywhere, classes that are missing: a policy, never a crash, and never a worse answer."""
    trace = classifier(n=n)
    same = replace(trace, logits=np.ones_like(trace.logits), gates=np.ones_like(trace.gates))
    single = classifier(n=n, labels=np.zeros(n, dtype=int))
    for few in (trace, same, single):
        policy = tune(few, name, max_accuracy_drop=0.0)
        assert policy.target["reached"] >= policy.target["full"]
        assert policy.target["examples"] == n
        assert tune(few, name, max_cost=1.0).target["cost"] <= 1.0 + 1e-12


@given(seed=st.integers(0, 10**6), n=st.integers(10, 40))
@settings(max_examples=20, deadline=None)
def test_few_examples_never_leave_sooner_than_their_drop_alone_allows(seed, n):
    trace = classifier(seed, n=n)
    few = tune(trace, "confidence", max_accuracy_drop=0.05)
    plain = brute_force(few, trace, "accuracy", drop=0.05)
    assert few.target["cost"] >= plain[0] - 1e-12


def test_many_examples_have_no_standard_error():
    assert "standard_error" not in tune(classifier(n=100), "confidence", max_accuracy_drop=0.05).target


def test_refusals():
    trace = classifier(n=40)
    with pytest.raises(CalibrationError, match="exactly one of max_accuracy_drop and max_cost, got none"):
        tune(trace, "confidence")
    with pytest.raises(CalibrationError, match="got both"):
        tune(trace, "confidence", max_accuracy_drop=0.1, max_cost=0.5)
    for drop in (-0.1, float("nan"), float("inf"), 101, True, "much"):
        with pytest.raises(
            ConfigError, match="max_accuracy_drop is a share between 0 and 1, got .*: write 0.05 for"
        ):
            tune(trace, "confidence", max_accuracy_drop=drop)
    for cost in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="max_cost is a share above 0 and at most 1"):
            tune(trace, "confidence", max_cost=cost)


@pytest.mark.parametrize(
    ("target", "written"),
    [
        ({"max_accuracy_drop": 5}, "got 5: write 0.05 for 5 points"),
        ({"max_accuracy_drop": "0.5 %"}, "got '0.5 %': write 0.005 for 0.5 points"),
        ({"max_cost": 50}, "got 50: write 0.5 for 50 %"),
        ({"max_cost": 1.5}, "got 1.5: write 0.015 for 1.5 %"),
        ({"guarantee": "disagreement", "alpha": 2.5}, "got 2.5: write 0.025 for 2.5 %"),
    ],
)
def test_a_percentage_is_refused_with_the_share_that_it_means(target, written):
    with pytest.raises(ConfigError, match=re.escape(written)):
        tune(classifier(n=40), "confidence", **target)


def test_a_cascade_that_recomputes_may_cost_more_than_its_full_model():
    trace = classifier(n=40, cascade=True)
    assert tune(trace, "confidence", max_cost=1.2).target["cost"] <= 1.2
    for cost in (trace.exits + 0.5, 50):
        with pytest.raises(ConfigError, match="max_cost is a share above 0 and at most 1"):
            tune(trace, "confidence", max_cost=cost)


def test_no_examples_missing_labels_and_rules_without_a_threshold_are_refused():
    trace = classifier(n=40)
    with pytest.raises(CalibrationError, match="has none: cut more rows with --calibration-size"):
        tune(trace.take(slice(0, 0)), "confidence", max_cost=0.5)
    with pytest.raises(CalibrationError, match="needs labels, but the trace has none"):
        tune(replace(trace, labels=None), "confidence", max_cost=0.5)
    for name in ("fixed", "oracle"):
        with pytest.raises(CalibrationError, match=f"'{name}' has no threshold to tune"):
            tune(trace, name, max_cost=0.5)


def test_refusals_of_what_does_not_fit():
    trace = classifier(n=40)
    with pytest.raises(CriterionError, match="unknown criterion 'confidens'"):
        tune(trace, "confidens", max_cost=0.5)
    with pytest.raises(CriterionError, match="'learned' needs learned gates"):
        tune(replace(trace, gates=None), "learned", max_cost=0.5)
    with pytest.raises(
        ConfigError, match="'accuracy' is for classification, but the task is regression: use 'pearson'"
    ):
        tune(regressor(), "patience", max_cost=0.9)
    with pytest.raises(CriterionError, match="the task is regression: use 'patience'"):
        tune(regressor(), "confidence", max_cost=0.9, metric="pearson")
    with pytest.raises(ConfigError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        tune(trace, "confidence", max_cost=0.5, metric="acuracy")


def test_nothing_is_reported_on_its_calibration_data():
    trace = classifier()
    policy = tune(trace, "confidence", max_cost=0.6)
    for data in (trace, trace.fingerprint):
        with pytest.raises(CalibrationError, match=r"calibrated on these data \(fingerprint calibration"):
            refuse_if_calibrated(policy, data)
    refuse_if_calibrated(policy, replace(trace, fingerprint="other data"))
    refuse_if_calibrated(replace(policy, calibrated_on=""), "")
