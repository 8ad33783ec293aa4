"""Alarms: how seldom they are false, how soon they are true, and what the audit tunes anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import CalibrationError, ConfigError
from offramp.calibration import tune
from offramp.serving.audit import Audit, ShadowAudit, confidence_sequence, promised_disagreement
from offramp.serving.detector import EDetector, bernoulli_bets, upper_bound
from offramp.serving.drift import DriftMonitor, depth_bets
from tests.calibration.calibration_traces import classifier, regressor

COUNTS = np.array([350, 300, 200, 150])
SHARES = COUNTS / COUNTS.sum()


def first_alarm(detector: EDetector, outcomes) -> int:
    """Number of observations until the first alarm, all of them where there is none."""
    for seen, outcome in enumerate(outcomes.tolist(), start=1):
        if detector.observe(outcome):
            return seen
    return len(outcomes)


def run_lengths(e_values, shares, every: int, runs: int, longest: int) -> np.ndarray:
    """Run lengths of many detectors; the slow loop is `EDetector`."""
    rng = np.random.default_rng(0)
    return np.array(
        [
            first_alarm(EDetector(e_values, every), rng.choice(len(shares), longest, p=shares))
            for _ in range(runs)
        ]
    )


def test_the_evidence_worked_out_by_hand() -> None:
    detector = EDetector(np.array([[0.5, 2.0], [1.0, 1.0]]), every=4)
    assert detector.observe(1) is False
    assert detector.evidence == pytest.approx((2 + 1) / 2 / 4)
    assert detector.observe(1) is True  # ((2 + 1)·2 + (1 + 1)·1) / 2 = 4
    assert detector.evidence == 0
    assert detector.observe(0) is False
    assert detector.evidence == pytest.approx((0.5 + 1) / 2 / 4)


@settings(deadline=None)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=8).filter(sum))
def test_no_bet_on_exits_wins_if_texts_leave_as_the_calibration_did(counts) -> None:
    counts = np.array(counts)
    bets = depth_bets(counts, 0.01)
    assert bets.shape[1] == len(counts)
    assert (bets >= 0).all()
    assert (bets @ (counts / counts.sum()) <= 1 + 1e-9).all()


@settings(deadline=None)
@given(st.floats(1e-6, 0.999), st.floats(0, 1))
def test_no_bet_wins_while_the_bound_holds(bound, below) -> None:
    bets = bernoulli_bets(bound)
    share = bound * below
    assert (bets @ [1 - share, share] <= 1 + 1e-9).all()
    assert bets @ [1 - bound, bound] == pytest.approx(1)


@pytest.mark.parametrize("events", [0, 7, 93, 100])
def test_upper_bounds_are_those_of_clopper_and_pearson(events) -> None:
    from scipy.stats import binomtest

    expected = binomtest(events, 100).proportion_ci(0.98, "exact").high
    assert upper_bound(events, 100, 0.01) == pytest.approx(expected)


def test_false_alarms_are_as_rare_as_stated_and_true_ones_come_soon() -> None:
    bets = depth_bets(COUNTS, 0.01)
    assert run_lengths(bets, SHARES, 200, 60, 400).mean() > 300  # cut at 400, so 200 is far away
    tight = depth_bets(10**6 * COUNTS, 0.01)  # hardly any noise to allow for
    assert 50 < run_lengths(tight, SHARES, 50, 300, 2000).mean() < 1000
    attacked = run_lengths(bets, np.array([0.0, 0.0, 0.1, 0.9]), 100_000, 30, 500)
    assert np.median(attacked) < 20
    deeper = run_lengths(bets, np.array([0.25, 0.25, 0.2, 0.3]), 100_000, 20, 3000)
    assert np.median(deeper) < 600
    shallower = run_lengths(bets, np.array([0.6, 0.25, 0.1, 0.05]), 100_000, 20, 3000)
    assert np.median(shallower) < 200


def test_each_client_is_watched_by_itself() -> None:
    monitor = DriftMonitor(COUNTS, clients=2)
    honest = np.random.default_rng(0).choice(4, 500, p=SHARES)
    assert monitor.observe("honest", honest) == 0
    assert monitor.observe("attacker", np.full(100, 3)) >= 5
    assert 0 < monitor.evidence("honest") < 1
    monitor.observe("third", honest)
    assert monitor.evidence("honest") == 0  # the least recently seen is forgotten
    assert monitor.evidence("nobody") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"calibration": ()},
            "calibration must be counts of two exits or more, got []: tune the policy again",
        ),
        (
            {"calibration": [0, 0]},
            "calibration must be counts of two exits or more, got [0, 0]: tune the policy again",
        ),
        ({"calibration": [0.5, 1]}, "a count must be a whole number of at least 0, got 0.5"),
        ({"calibration": [5, 5], "every": 0}, "every must be a whole number of at least 1, got 0"),
    ],
)
def test_options_of_a_monitor_are_checked(options, message) -> None:
    with pytest.raises(ConfigError) as caught:
        DriftMonitor(**options)
    assert str(caught.value) == message


def test_the_interval_at_its_ends() -> None:
    assert confidence_sequence(0, 0) == (0.0, 1.0)
    low, high = confidence_sequence(0, 1000)
    assert low == 0
    assert 0.003 < high < 0.02
    low, high = confidence_sequence(1000, 1000)
    assert 0.98 < low < 1
    assert high == 1


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.5, 0.999))
def test_the_interval_holds_the_share_and_shrinks(trials, share, confidence) -> None:
    successes = round(share * trials)
    low, high = confidence_sequence(successes, trials, confidence)
    assert 0 <= low <= successes / trials <= high <= 1
    wider_low, wider_high = confidence_sequence(successes, trials, confidence + (1 - confidence) / 2)
    assert wider_low <= low + 1e-9
    assert wider_high >= high - 1e-9


def test_the_interval_seldom_misses_at_any_time() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(60):
        wrong = np.cumsum(rng.random(300) < 0.1)
        ends = [confidence_sequence(int(wrong[n - 1]), n, 0.8) for n in range(1, 301, 7)]
        missed += any(not low <= 0.1 <= high for low, high in ends)
    assert 0 < missed <= 0.2 * 60


@pytest.fixture(scope="module")
def tuned():
    trace = classifier(n=600, classes=2)
    return tune(trace, "confidence", max_accuracy_drop=0.05)


def test_the_promise_of_a_policy(tuned) -> None:
    disagreement = tuned.target["disagreement"]
    assert 0 < disagreement < promised_disagreement(tuned) < disagreement + 0.05
    trace = classifier(n=600, classes=2)
    for guarantee in ("disagreement", "conformal"):
        assert promised_disagreement(tune(trace, guarantee=guarantee, alpha=0.1)) == 0.1
    loss = tune(trace, guarantee="accuracy_drop", alpha=0.1)
    assert promised_disagreement(loss) > loss.target["disagreement"]
    numbers = tune(regressor(n=200), "patience", max_cost=1.0, metric="pearson")
    for policy in (numbers, replace(tuned, target={})):
        with pytest.raises(ConfigError, match="tune it again with 'offramp tune'"):
            promised_disagreement(policy)


def test_an_audit_counts_alarms_and_begins_again(tuned) -> None:
    audit = Audit(tuned, every=1000)
    trace = classifier(seed=1, n=400, classes=2)
    same = tuned.decide(trace).prediction
    assert audit.observe(trace, same) == 0
    state = audit.state(dropped=3)
    assert (state.audited, state.alarms, state.dropped) == (400, 0, 3)
    assert state.low < state.disagreement < state.promise < state.high + 0.1
    assert audit.observe(trace, 1 - same) >= 5
    assert audit.state().audited < 400
    assert np.isnan(Audit(tuned).state().disagreement)


def test_a_policy_is_tuned_again_on_what_was_audited(tuned) -> None:
    """On texts that are harder than the calibration's, the new threshold keeps the old promise."""
    audit = Audit(tuned)
    with pytest.raises(CalibrationError, match="no text has been audited yet: wait, or audit a larger share"):
        audit.retuned()
    shifted = classifier(seed=2, n=500, classes=2)
    shifted = replace(shifted, logits=shifted.logits * [[[1.0], [2.0], [1.0], [1.0]]], labels=None)
    audit.observe(shifted, tuned.decide(shifted).prediction)
    assert audit.trace().labels.tolist() == shifted.predictions()[:, -1].tolist()
    assert audit.trace().flops.tolist() == shifted.flops.tolist()
    policy = audit.retuned()
    full = shifted.predictions()[:, -1]
    assert (tuned.decide(shifted).prediction != full).mean() > audit.promise
    assert (policy.decide(shifted).prediction != full).mean() <= audit.promise
    assert policy.temperatures == tuned.temperatures
    assert policy.target["disagreement"] <= audit.promise
    guaranteed = Audit(tune(classifier(n=600, classes=2), guarantee="disagreement", alpha=0.1, delta=0.2))
    guaranteed.observe(shifted, tuned.decide(shifted).prediction)
    assert (guaranteed.retuned().target["alpha"], guaranteed.retuned().target["delta"]) == (0.1, 0.2)


def test_a_share_is_audited_off_the_way_and_dropped_when_behind(tuned) -> None:
    trace = classifier(seed=1, n=400, classes=2)
    encodings = [{"input_ids": [row]} for row in range(400)]
    alarms: list[int] = []

    def full(batch):
        return trace.take(np.array([encoding["input_ids"][0] for encoding in batch]))

    audit = ShadowAudit(Audit(tuned), 0.5, full, waiting=100)
    audit.on_audit = alarms.append
    audit.offer(encodings, tuned.decide(trace).prediction)
    audit.start()
    for _ in range(200):
        if audit.state().audited == 100:
            break
        audit.close()
        audit.run_waiting()
    state = audit.state()
    assert state.audited == 100
    assert 60 < state.dropped < 140
    assert set(alarms) == {0}
    with pytest.raises(
        ConfigError, match="the audited share is a share above 0 and at most 1, got 5: write 0.05"
    ):
        ShadowAudit(Audit(tuned), 5, full)


def test_a_failed_audit_does_not_end_the_thread(tuned, caplog) -> None:
    batches: list[int] = []

    def full(batch):
        batches.append(len(batch))
        raise ValueError("broken")

    audit = ShadowAudit(Audit(tuned), 1.0, full)
    audit.start()
    audit.offer([{"input_ids": [1]}] * 40, np.zeros(40))
    for _ in range(100):
        if len(batches) == 2:
            break
        audit._stopped.wait(0.05)
    audit.close()
    assert batches == [32, 8]
    assert "texts could not be audited" in caplog.text
