"""Guarantees: the p-values against their slow twins, and the stated coverage on fresh draws."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from offramp._core.errors import CalibrationError, ConfigError, CriterionError
from offramp.calibration import tune_conformal, tune_with_guarantee
from offramp.calibration.guarantee import (
    BETS,
    betting_p_value,
    binomial_p_value,
    most_misleading,
    split_and_prepare,
)
from offramp.criteria import CRITERIA, make_criterion, scores, threshold_grid, with_threshold
from tests.calibration.calibration_traces import classifier, regressor

TUNABLE = [name for name, rule in CRITERIA.items() if rule.tunable]


def risks(policy, trace):
    """Accuracy drop and disagreement of a policy on a trace, by the definition."""
    decided, answers = policy.decide(trace), trace.predictions()[:, -1]
    drop = (answers == trace.labels).mean() - (decided.prediction == trace.labels).mean()
    return {"accuracy_drop": drop, "disagreement": (decided.prediction != answers).mean()}


def test_the_binomial_tail_against_its_sum():
    losses = np.array([1.0] * 3 + [0.0] * 27)
    from math import comb

    tail = sum(comb(30, k) * 0.2**k * 0.8 ** (30 - k) for k in range(4))
    assert binomial_p_value(losses, 0.2) == pytest.approx(tail)


def test_the_binomial_tail_is_never_above_hoeffding_bentkus():
    for n, bad, alpha in product((20, 100), (0, 1, 4, 9), (0.05, 0.2, 0.5)):
        mean = min(bad / n, alpha)
        h1 = (mean * np.log(mean / alpha) if mean else 0) + (1 - mean) * np.log((1 - mean) / (1 - alpha))
        exact = binomial_p_value(np.array([1.0] * bad + [0.0] * (n - bad)), alpha)
        assert exact <= min(np.exp(-n * h1), np.e * exact) + 1e-12


def test_betting_against_its_slow_twin_and_without_regard_to_order():
    losses = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], 60, p=[0.1, 0.8, 0.1])
    wealth = [np.prod([1 + share / (1 - 0.3) * (0.3 - loss) for loss in losses]) for share in BETS]
    assert betting_p_value(losses, 0.3) == pytest.approx(1 / np.mean(wealth))
    assert betting_p_value(losses[::-1], 0.3) == pytest.approx(betting_p_value(losses, 0.3))


@pytest.mark.parametrize(("worse", "better"), [(0.05, 0.0), (0.15, 0.1), (0.4, 0.35)])
def test_p_values_are_valid_where_the_risk_is_just_alpha(worse, better):
    """At the edge of the null hypothesis P(p ≤ δ) ≤ δ: here with room for three standard errors."""
    rng = np.random.default_rng(1)
    for delta in (0.05, 0.2):
        runs = 1000
        drawn = rng.choice([1.0, -1.0, 0.0], (runs, 150), p=[worse, better, 1 - worse - better])
        small = np.mean([betting_p_value(losses, worse - better) <= delta for losses in drawn])
        assert small <= delta + 3 * np.sqrt(delta * (1 - delta) / runs)


def test_betting_gives_way_to_no_variance():
    """A thousand pairs that differ in ten settle a drop of two points; the range alone would not."""
    losses = np.array([1.0] * 5 + [-1.0] * 5 + [0.0] * 990)
    assert betting_p_value(losses, 0.02) < 0.01
    assert np.exp(-1000 * 0.02**2 / 2) > 0.8  # Hoeffding


@pytest.mark.parametrize("risk", ["accuracy_drop", "disagreement"])
@pytest.mark.parametrize("name", TUNABLE)
def test_the_threshold_is_the_last_before_the_first_that_fails(name, risk):
    trace, alpha, delta = classifier(seed=5, n=240), 0.15, 0.2
    policy = tune_with_guarantee(trace, name, risk=risk, alpha=alpha, delta=delta)
    base, fit, test = split_and_prepare(trace, name, True, 0, labelled=True)
    grid = threshold_grid(base.criterion, scores(base.criterion, fit.scaled(base.temperatures)), 200)
    last = grid[-1]
    for threshold in grid[::-1][1:]:
        rule = replace(base, criterion=with_threshold(base.criterion, threshold))
        decided, answers = rule.decide(test), test.predictions()[:, -1]
        if risk == "disagreement":
            p = binomial_p_value((decided.prediction != answers).astype(float), alpha)
        else:
            gains = (answers == test.labels).astype(float) - (decided.prediction == test.labels)
            p = betting_p_value(gains, alpha)
        if p > delta:
            break
        last = threshold
    assert policy.criterion.threshold == last
    assert policy.temperatures == base.temperatures
    assert policy.target["risk_reached"] == pytest.approx(risks(policy, test)[risk])
    assert policy.target["examples"] == len(test)
    assert policy.target["cost"] == pytest.approx(policy.decide(test).flops.sum() / test.full_flops.sum())


@pytest.mark.parametrize("risk", ["accuracy_drop", "disagreement"])
@pytest.mark.parametrize("name", ["confidence", "entropy", "patience"])
def test_the_risk_keeps_the_promise_on_fresh_data(name, risk):
    """200 random splits: the risk on everything exceeds alpha in at most a share delta of them."""
    trace, alpha, delta = classifier(seed=6, n=3000), 0.05, 0.2
    rng = np.random.default_rng(7)
    broken, costs = 0, []
    for _ in range(200):
        part = trace.take(rng.choice(len(trace), 400, replace=False))
        policy = tune_with_guarantee(
            part, name, risk=risk, alpha=alpha, delta=delta, temperatures=name == "entropy"
        )
        broken += risks(policy, trace)[risk] > alpha
        costs.append(policy.target["cost"])
    assert broken <= delta * 200
    if name != "patience":  # three exits leave it little to choose from
        assert np.mean(costs) < 0.97  # and not by never leaving


@pytest.mark.parametrize("name", ["confidence", "entropy", "patience", "margin"])
def test_conformal_consistency_holds_on_average(name):
    trace, alpha = classifier(seed=8, n=3000), 0.1
    rng = np.random.default_rng(9)
    found = []
    for _ in range(200):
        policy = tune_conformal(
            trace.take(rng.choice(len(trace), 120, replace=False)), name, alpha=alpha, temperatures=False
        )
        found.append(risks(policy, trace)["disagreement"])
    assert np.mean(found) <= alpha + 3 * np.std(found) / np.sqrt(len(found))


def test_what_misleads_most_worked_out_by_hand():
    rule = make_criterion("confidence", 0.5)
    table = np.array([[0.7, 0.6, 0.9, 0.8], [0.6, 0.8, 0.7, 0.9], [0.9, 0.6, 0.5, 0.4]])
    answers = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    # Row 0: exit 2 (0.6) is beaten by exit 1 (0.7). Row 1: exit 3 (0.7) by exit 2. Row 2 never misleads.
    np.testing.assert_array_equal(most_misleading(rule, table, answers), [0.7, 0.8, -np.inf])


@pytest.mark.parametrize("name", TUNABLE)
def test_conformal_keeps_its_rank_on_its_own_examples(name):
    trace = classifier(seed=10, n=300)
    for alpha in (0.05, 0.3):
        policy = tune_conformal(trace, name, alpha=alpha)
        test = split_and_prepare(trace, name, True, 0, labelled=False)[2]
        assert risks(policy, test)["disagreement"] <= alpha
        assert policy.target["guarantee"] == "conformal"


def test_a_level_that_nothing_laxer_meets_gives_the_full_model():
    trace = classifier(seed=11, n=100)
    broken = trace.logits.copy()
    broken[:, :-1] = -broken[:, -1:]  # every early exit answers otherwise
    policy = tune_with_guarantee(replace(trace, logits=broken), "confidence", risk="disagreement", alpha=0.04)
    assert policy.target["cost"] == 1.0
    assert policy.target["risk_reached"] == 0.0


def test_disagreement_needs_no_labels_without_temperatures():
    trace = replace(classifier(n=200), labels=None)
    policy = tune_with_guarantee(trace, "confidence", risk="disagreement", alpha=0.1, temperatures=False)
    assert policy.temperatures is None
    assert "reached" not in policy.target
    with pytest.raises(CalibrationError, match="needs labels"):
        tune_with_guarantee(trace, "confidence", risk="accuracy_drop", alpha=0.1, temperatures=False)


def test_refusals():
    trace = classifier(n=200)
    with pytest.raises(CalibrationError, match="Did you mean 'accuracy_drop'"):
        tune_with_guarantee(trace, "confidence", risk="acuracy_drop", alpha=0.1)
    for level in (0.0, 1.0, -0.1, float("nan"), "5%"):
        with pytest.raises(
            ConfigError, match="alpha is a share above 0 and below 1, got .*: write 0.05 for 5 %"
        ):
            tune_with_guarantee(trace, "confidence", alpha=level)
        with pytest.raises(ConfigError, match="delta is a share above 0 and below 1"):
            tune_with_guarantee(trace, "confidence", alpha=0.1, delta=level)
    with pytest.raises(CalibrationError, match="task is regression"):
        tune_with_guarantee(regressor(n=200), "patience", alpha=0.1)
    with pytest.raises(CalibrationError, match="no threshold to tune"):
        tune_with_guarantee(trace, "fixed", alpha=0.1)
    with pytest.raises(CalibrationError, match="examples to fit and others to test, got 1 calibration"):
        tune_conformal(trace.take(slice(1)), "confidence", alpha=0.1)
    with pytest.raises(CriterionError, match="Did you mean 'confidence'"):
        tune_conformal(trace, "confidense", alpha=0.1)


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("guarantee", ["accuracy_drop", "disagreement", "conformal"])
def test_the_least_number_of_examples_is_stated_and_is_enough(guarantee, alpha):
    """With one example fewer than stated nothing could be shown; with the stated number it can."""
    trace = classifier(n=2000)
    trace = replace(trace, logits=np.repeat(trace.logits[:, -1:], 4, axis=1))  # no exit differs: no losses

    def policy(n):
        part = trace.take(slice(n))
        if guarantee == "conformal":
            return tune_conformal(part, "confidence", alpha=alpha)
        return tune_with_guarantee(part, "confidence", risk=guarantee, alpha=alpha, delta=0.1)

    with pytest.raises(
        CalibrationError, match=r"needs at least \d+ calibration examples.* got 4: "
    ) as refused:
        policy(4)
    needed = int(re.search(r"at least (\d+) ", str(refused.value))[1])
    assert policy(needed).target["cost"] < 1
    with pytest.raises(CalibrationError, match=f"needs at least {needed} calibration"):
        policy(needed - 1)
