"""Thresholds of their own for each exit: against brute force, and never dearer than one threshold for all."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from offramp._core.errors import CalibrationError, ConfigError, CriterionError
from offramp.calibration import tune, tune_accumulated_gap, tune_threshold, tune_with_guarantee
from offramp.calibration.accumulated_gap import accumulated_gap, gap_search, propose
from offramp.calibration.guarantee import split_and_prepare
from offramp.calibration.own_thresholds import PRICES, ThresholdSearch
from offramp.criteria import CRITERIA, first_exit, make_criterion, scores, with_threshold
from tests.calibration.calibration_traces import classifier, regressor

TUNABLE = [name for name, rule in CRITERIA.items() if rule.tunable]


def cost(policy, trace):
    return policy.decide(trace).flops.sum() / trace.full_flops.sum()


@pytest.mark.parametrize("name", ["confidence", "entropy", "patience"])
def test_the_vectors_of_the_path_are_nearly_the_best_of_all(name):
    """Of all vectors of two thresholds: exact for most draws. Few are far off, so the mean over draws is bounded."""
    gaps = np.array([gap_to_the_best(name, classifier(seed, n=9, exits=3)) for seed in range(60)])
    assert (gaps >= -1e-9).all()
    assert (gaps.mean(axis=1) < 1e-9).mean() >= 0.8
    assert gaps.mean() <= 0.05  # of one mistake


def gap_to_the_best(name, trace):
    """How far the path is above the least of all totals, at every third price."""
    rule = make_criterion(name)
    table = scores(rule, trace)
    losses = (trace.predictions() != trace.labels[:, None]).astype(float)
    costs = trace.flops / trace.full_flops.mean()
    ends = np.clip(rule.threshold_range, -9, 9)
    grids = [np.unique(np.clip(np.concatenate([table[:, k], ends]), *rule.threshold_range)) for k in (0, 1)]
    exits = np.array([first_exit(with_threshold(rule, pair), table) for pair in product(*grids)])
    rows = np.arange(len(trace))
    gaps = []
    for price, vector in list(zip(PRICES, ThresholdSearch(rule, table, losses, costs).path(), strict=True))[
        ::3
    ]:
        values = losses + price * costs
        reached = values[rows, first_exit(with_threshold(rule, vector), table)].sum()
        gaps.append(reached - values[rows, exits].sum(axis=1).min())
    return gaps


def test_the_search_worked_out_by_hand():
    """Exit 1 is right on the rows it is surest of and exit 2 on all, so only these rows leave at exit 1."""
    table = np.array([[0.9, 0.6, 0.5], [0.8, 0.7, 0.5], [0.7, 0.9, 0.5], [0.6, 0.8, 0.5]])
    losses = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]], dtype=float)
    costs = np.tile([0.1, 0.5, 1.0], (4, 1))
    path = ThresholdSearch(make_criterion("confidence"), table, losses, costs).path()
    assert path[0] == (0.75, 0.0)
    assert path[-1][0] == 0.0  # errors cost next to nothing, and every row leaves at once


@pytest.mark.parametrize("name", TUNABLE)
@pytest.mark.parametrize("target", [{"max_accuracy_drop": 0.02}, {"max_cost": 0.85}])
def test_own_thresholds_never_lose_on_the_calibration_examples(name, target):
    for seed in range(3):
        trace = classifier(seed=seed, n=150, exits=4)
        shared = tune(trace, name, thresholds="shared", **target)
        own = tune(trace, name, thresholds="own", **target)
        if "max_cost" in target:
            assert own.target["reached"] >= shared.target["reached"]
            assert own.target["cost"] <= 0.85 + 1e-9
        else:
            assert own.target["cost"] <= shared.target["cost"]
            assert own.target["full"] - own.target["reached"] <= 0.02 + 1e-9
        assert own.target["cost"] == pytest.approx(cost(own, trace))
        assert own.target["reached"] == pytest.approx((own.decide(trace).prediction == trace.labels).mean())


def test_own_thresholds_save_where_one_exit_is_overconfident():
    """The first exit is right and unsure, the second sure and wrong: no threshold for both can tell them apart."""
    trace = classifier(seed=1, n=400, exits=3)
    logits = trace.logits.copy()
    logits[:, 0] = np.eye(3)[trace.labels] * 0.5
    logits[:, 1] = np.eye(3)[(trace.labels + 1) % 3] * 3
    logits[:, 2] = np.eye(3)[trace.labels] * 9
    crossed = replace(trace, logits=logits)
    options = {"max_accuracy_drop": 0.01, "temperatures": False}
    assert tune(crossed, "confidence", thresholds="own", **options).target["cost"] == pytest.approx(
        crossed.flops[:, 0].sum() / crossed.full_flops.sum()
    )


@pytest.mark.parametrize("metric", ["macro_f1", "pearson"])
def test_other_metrics_and_regression(metric):
    trace, name = (regressor(n=120), "patience") if metric == "pearson" else (classifier(n=120), "confidence")
    shared, own = (
        tune(trace, name, thresholds=form, metric=metric, max_accuracy_drop=0.03)
        for form in ("shared", "own")
    )
    assert own.target["cost"] <= shared.target["cost"]
    assert own.target["full"] - own.target["reached"] <= 0.03 + 1e-9


def test_a_model_of_one_exit_has_no_thresholds_to_choose():
    trace = classifier(n=60, exits=1)
    assert tune(trace, "confidence", thresholds="own", max_accuracy_drop=0.1).target["cost"] == 1.0


@pytest.mark.parametrize("risk", ["accuracy_drop", "disagreement"])
@pytest.mark.parametrize(("thresholds", "recall"), [("own", False), ("own", True), ("shared", True)])
def test_the_guarantee_holds_for_every_form_of_policy(risk, thresholds, recall):
    """Over draws from the trace, which is the distribution; δ with room for no error at all."""
    trace, alpha, delta, broken, costs = classifier(seed=3, n=1500), 0.12, 0.2, 0, []
    rng = np.random.default_rng(4)
    for seed in range(15):
        drawn = trace.take(rng.integers(len(trace), size=400))
        policy = tune_with_guarantee(
            drawn,
            "confidence",
            risk=risk,
            alpha=alpha,
            delta=delta,
            thresholds=thresholds,
            recall=recall,
            seed=seed,
        )
        decided, full = policy.decide(trace), trace.predictions()[:, -1]
        right = (full == trace.labels).mean() - (decided.prediction == trace.labels).mean()
        broken += (right if risk == "accuracy_drop" else (decided.prediction != full).mean()) > alpha
        costs.append(policy.target["cost"])
    assert broken <= delta * 15
    assert np.mean(costs) < 0.97


def test_every_exit_keeps_its_promise_and_one_average_would_not():
    """The accumulated gap holds at every exit, over draws from the trace. The average alone hides the first exits."""
    trace, alpha, delta = classifier(seed=6, n=3000, exits=4), 0.2, 0.2
    rng, gaps, average = np.random.default_rng(7), [], []
    for seed in range(15):
        drawn = trace.take(rng.integers(len(trace), size=900))
        policy = tune_accumulated_gap(drawn, "confidence", alpha=alpha, delta=delta, seed=seed)
        decided, right = policy.decide(trace), trace.predictions() == trace.labels[:, None]
        lost = right[:, -1] & (decided.prediction != trace.labels)
        by_exit = [lost[decided.exit <= k].mean() for k in range(4) if (decided.exit <= k).any()]
        assert accumulated_gap(trace, decided.exit) == pytest.approx(max(by_exit))
        gaps.append(max(by_exit))
        marginal = tune_with_guarantee(drawn, "confidence", alpha=alpha, delta=delta, seed=seed)
        average.append(accumulated_gap(trace, marginal.decide(trace).exit))
        assert policy.target["cost"] < 1
    assert np.mean(np.array(gaps) > alpha) <= delta
    assert np.mean(np.array(average) > alpha) > delta


def test_proposals_are_the_laxest_that_would_pass():
    """The slow twin: for each exit in turn, the laxest score whose accumulated gap passes the test."""
    trace, alpha, delta = classifier(seed=8, n=500), 0.2, 0.1
    policy, fit, test = split_and_prepare(trace, "confidence", False, 0, labelled=True)
    search, ratio = gap_search(policy, fit), len(test) / len(fit)
    table = search.turned
    vector = np.full(table.shape[1] - 1, search.none)
    for k in range(len(vector)):
        for score in np.unique(table[:, k]):
            tried = vector.copy()
            tried[k] = score
            exit = search.exits(tried)
            left = exit <= k
            lost = search.losses[np.arange(len(fit)), exit][left].sum()
            if (exit == k).any() and binom.cdf(
                np.ceil(lost * ratio), np.floor(left.sum() * ratio), alpha
            ) <= delta:
                vector = tried
                break
    proposed = propose(search, ratio, alpha, delta)
    np.testing.assert_array_equal(search.exits(proposed), search.exits(vector))
    assert (proposed < search.none).any()


def test_exits_that_lose_much_keep_their_texts():
    trace = classifier(seed=9, n=600)
    logits = trace.logits.copy()
    logits[:, :-1] = -logits[:, -1:]  # every early exit is wrong where the last is right
    policy = tune_accumulated_gap(replace(trace, logits=logits), "confidence", alpha=0.05)
    assert policy.target["cost"] == 1.0
    assert policy.target["risk_reached"] == 0.0


def test_recall_is_tuned_for_its_own_answers():
    trace = classifier(seed=10, n=400)
    for form in ("shared", "own"):
        policy = tune(trace, "confidence", recall=True, thresholds=form, max_cost=0.8)
        decided = policy.decide(trace)
        assert policy.recall
        assert (decided.answer_exit < decided.exit).any()
        assert policy.target["reached"] == pytest.approx((decided.prediction == trace.labels).mean())


def test_recall_that_loses_too_much_is_refused():
    """An early exit is sure and wrong, so recall never answers with the last exit."""
    trace = classifier(seed=11, n=300)
    logits = trace.logits.copy()
    logits[:, 0] = np.eye(3)[(trace.labels + 1) % 3] * 50
    wrong = replace(trace, logits=logits)
    with pytest.raises(
        CalibrationError, match="with recall every threshold drops the metric by more than 0.01"
    ):
        tune(wrong, "confidence", recall=True, temperatures=False, max_accuracy_drop=0.01)


@pytest.mark.parametrize("name", TUNABLE)
@pytest.mark.parametrize("silent", [slice(None, None, 3), slice(None)], ids=["some", "all"])
def test_no_threshold_lets_a_text_leave_that_layer_0_does_not_recognise(name, silent):
    """Here it would pay: the answers of layer 0 to these texts happen to be right."""
    trace = replace(classifier(seed=2, n=400, exits=3), exit_layers=(0, 2, 4))
    logits = trace.logits.copy()
    logits[silent, 0] = 0
    trace = replace(trace, logits=logits, labels=np.where(logits[:, 0].any(axis=1), trace.labels, 0))
    targets = [{"max_cost": 1.0}, {"max_accuracy_drop": 1.0}, {"guarantee": "disagreement", "alpha": 0.9}]
    for target, form in product(targets, ("shared", "own")):
        exit = tune(trace, name, thresholds=form, **target).decide(trace).exit
        assert (exit[silent] > 0).all()
    for guarantee in ("conformal", "accumulated_gap"):
        exit = tune(trace, name, guarantee=guarantee, alpha=0.6).decide(trace).exit
        assert (exit[silent] > 0).all()


def test_refusals():
    trace = classifier(n=200)
    with pytest.raises(ConfigError, match="unknown thresholds 'ovn'. Did you mean 'own'"):
        tune(trace, "confidence", thresholds="ovn", max_cost=0.5)
    with pytest.raises(ConfigError, match="unknown thresholds"):
        tune_threshold(trace, "confidence", thresholds="each", max_cost=0.5)
    with pytest.raises(ConfigError, match="conformal is for shared thresholds: leave thresholds"):
        tune(trace, guarantee="conformal", alpha=0.1, thresholds="own")
    with pytest.raises(ConfigError, match="accumulated_gap is for own thresholds: leave thresholds"):
        tune(trace, guarantee="accumulated_gap", alpha=0.1, thresholds="shared")
    with pytest.raises(
        ConfigError, match="accumulated_gap covers the answers of the exits at which texts leave"
    ):
        tune(trace, guarantee="accumulated_gap", alpha=0.1, recall=True)
    with pytest.raises(ConfigError, match="recall must be True or False, got 'yes'"):
        tune(trace, max_cost=0.5, recall="yes")
    with pytest.raises(CriterionError, match="exits of a regression have no confidence: tune without recall"):
        tune(regressor(n=200), "patience", metric="pearson", max_cost=0.9, recall=True)
    with pytest.raises(
        CalibrationError, match="accumulated_gap of at most 0.02 .*needs at least 163 calibration"
    ):
        tune_accumulated_gap(trace.take(slice(100)), "confidence", alpha=0.02)
