"""Scores and exits worked out by hand. Logits ln a, ln b, ... have probabilities a, b, ... over their sum."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
from criteria_table import make_trace

from offramp._core.errors import CriterionError, DataError
from offramp.criteria import first_exit, make_criterion, scores


def trace_of(*probabilities, **options):
    """One example; each argument holds the class probabilities of one exit."""
    return make_trace(np.log(np.array([probabilities], dtype=np.float64)), **options)


def score(name, trace, **options):
    return scores(make_criterion(name, **options), trace)[0]


def leaves_at(name, threshold, trace, **options):
    """Exit number, counted from 1."""
    rule = make_criterion(name, threshold, **options)
    return int(first_exit(rule, scores(rule, trace))[0]) + 1


ONE = trace_of((0.5, 0.3, 0.2), (0.2, 0.7, 0.1), (0.05, 0.9, 0.05))


def test_confidence():
    assert score("confidence", ONE) == pytest.approx([0.5, 0.7, 0.9])
    assert [leaves_at("confidence", t, ONE) for t in (0.4, 0.6, 0.8, 0.95)] == [1, 2, 3, 3]


def test_confidence_leaves_at_the_threshold_itself():
    even = make_trace(np.zeros((1, 2, 2)))
    assert leaves_at("confidence", 0.5, even) == 1


def test_entropy_is_in_nats():
    # −(½ ln ½ + ½ ln ½) = ln 2; −(¾ ln ¾ + ¼ ln ¼) = 0.2158 + 0.3466 = 0.5623
    trace = trace_of((0.5, 0.5), (0.75, 0.25))
    assert score("entropy", trace) == pytest.approx([log(2), 0.562335])
    assert leaves_at("entropy", 0.6, trace) == 2
    assert leaves_at("entropy", 0.7, trace) == 1


def test_entropy_leaves_strictly_below():
    sure = make_trace(np.array([[[2000.0, 0.0], [2000.0, 0.0]]]))
    assert score("entropy", sure).tolist() == [0.0, 0.0]
    assert leaves_at("entropy", 0.0, sure) == 2
    assert leaves_at("entropy", 1e-9, sure) == 1


def test_cap_adds_a_class_for_what_the_classifier_does_not_read():
    # exp z = (3, 1), and e^(α·s) = 1 at s = 0, 2 at s = 1: the added class has 1/5 and 2/6.
    trace = trace_of((3.0, 1.0), (3.0, 1.0), residuals=[[0.0, 1.0]])
    assert score("cap", trace, alpha=log(2)) == pytest.approx([1 / 5, 1 / 3])
    assert [leaves_at("cap", t, trace, alpha=log(2)) for t in (0.19, 0.21)] == [2, 1]
    assert score("cap", trace, alpha=0) == pytest.approx([1 / 5, 1 / 5])


def test_normalized_entropy():
    # Uniform over 3 classes is 1; (½, ½, ~0) is ln 2 / ln 3 = 0.6309
    trace = trace_of((1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 1e-12))
    assert score("normalized_entropy", trace) == pytest.approx([1.0, 0.63093], abs=1e-5)
    assert leaves_at("normalized_entropy", 0.7, trace) == 2


def test_margin():
    assert score("margin", ONE) == pytest.approx([0.2, 0.5, 0.85])  # .5 − .3, .7 − .2, .9 − .05
    assert leaves_at("margin", 0.4, ONE) == 2


def sequence(*answers):
    """An example whose exits answer so, each with probability 0.8."""
    return trace_of(*[[0.8 if c == a else 0.1 for c in range(3)] for a in answers])


def test_patience_counts_confirmations_and_starts_again_on_a_change():
    # answers  A A B B B:  counter 0 1 0 1 2
    trace = sequence(0, 0, 1, 1, 1)
    assert score("patience", trace).tolist() == [0, 1, 0, 1, 2]
    assert [leaves_at("patience", t, trace) for t in (1, 2, 3)] == [2, 5, 5]


def test_patience_leaves_at_exit_t_plus_1_at_the_earliest():
    agreed = sequence(*[2] * 6)
    assert [leaves_at("patience", t, agreed) for t in (1, 2, 3, 4, 5, 6)] == [2, 3, 4, 5, 6, 6]


def test_patience_for_regression_compares_neighbours_strictly_within_the_tolerance():
    # 1.0, 1.25, 1.75, 1.75: steps of 0.25, 0.5, 0; τ = 0.5 is not below 0.5
    trace = make_trace(np.array([[[1.0], [1.25], [1.75], [1.75]]]), kind="regression")
    assert score("patience", trace, tolerance=0.5).tolist() == [0, 1, 0, 1]
    assert score("patience", trace, tolerance=0.51).tolist() == [0, 1, 2, 3]
    assert leaves_at("patience", 2, trace, tolerance=0.51) == 3
    assert score("patience", trace, tolerance=0.0).tolist() == [0, 0, 0, 0]


def test_patience_confidence_ignores_the_answer():
    # confidences .8 .8 (other answer) .5 .9: run 1 2 0 1
    trace = trace_of((0.8, 0.2), (0.2, 0.8), (0.5, 0.5), (0.9, 0.1))
    assert score("patience_confidence", trace, confidence=0.7).tolist() == [1, 2, 0, 1]
    assert leaves_at("patience_confidence", 2, trace, confidence=0.7) == 2
    assert leaves_at("patience_confidence", 3, trace, confidence=0.7) == 4


def test_vote_adds_up_the_current_run_of_agreeing_exits():
    # A .6, A .7 → 1.3, B .8 starts again, B .9 → 1.7
    trace = trace_of((0.6, 0.4), (0.7, 0.3), (0.2, 0.8), (0.1, 0.9))
    assert score("vote", trace) == pytest.approx([0.6, 1.3, 0.8, 1.7])
    assert [leaves_at("vote", t, trace) for t in (0.5, 1.0, 1.5, 3.0)] == [1, 2, 4, 4]
    assert score("vote", trace, reset=True) == pytest.approx([0, 0.7, 0, 0.9])
    weights = [0.5, 1, 2, 3]
    assert score("vote", trace, weights=weights) == pytest.approx([0.3, 1.0, 1.6, 4.3])
    assert score("vote", trace, weights=weights, reset=True) == pytest.approx([0, 0.7, 0, 2.7])


def test_vote_fits_its_weights():
    # Costs 1, 2, 3 of 4. Of two examples exit 1 is right on one, exit 2 on both, exit 3 on none.
    logits = np.log([[[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]])
    trace = replace(make_trace(logits), labels=np.array([0, 1]), full_flops=np.full(2, 4.0))
    assert make_criterion("vote").fit(trace).weights == ()
    assert make_criterion("vote", weighting="cost").fit(trace).weights == (0.25, 0.5, 0.75)
    assert make_criterion("vote", weighting="accuracy", reset=True).fit(trace) == make_criterion(
        "vote", weighting="accuracy", reset=True, weights=(0.5, 1.0, 0.0)
    )
    with pytest.raises(CriterionError, match="weights of 'vote' by cost are not fitted yet: tune it"):
        score("vote", trace, weighting="cost")
    with pytest.raises(CriterionError, match="'vote' has 2 weights, the model 3 exits: tune it again"):
        score("vote", trace, weights=[1, 1])
    with pytest.raises(DataError, match="fit the weights of 'vote' on, got an empty trace"):
        make_criterion("vote", weighting="cost").fit(trace.take(slice(0)))
    with pytest.raises(DataError, match="has no labels"):
        make_criterion("vote", weighting="accuracy").fit(replace(trace, labels=None))


def gated(gates):
    trace = make_trace(np.zeros((len(gates), len(gates[0]), 2)))
    trace.gates[:] = gates
    return trace


def test_learned_scales_each_exit_by_its_own_range():
    # exit 1: (.4 − .2)/(.6 − .2) = .5; exit 2: (.9 − .5)/(.8 − .5) > 1 → 1; exit 3: below its range → 0
    rule = make_criterion("learned", low=[0.2, 0.5, 0.3], high=[0.6, 0.8, 0.4])
    assert scores(rule, gated([[0.4, 0.9, 0.1]]))[0] == pytest.approx([0.5, 1.0, 0.0])
    assert score("learned", gated([[0.4, 0.9, 0.1]])) == pytest.approx([0.4, 0.9, 0.1])  # no range: as it is


def test_gate_ranges_are_the_smallest_and_largest_per_exit():
    constant = make_criterion("learned").fit(gated([[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]))
    assert constant == make_criterion("learned", low=(0.25, 0.5), high=(0.75, 0.5))
    # exit 2 was constant at .5: 0 up to there, 1 above
    assert scores(constant, gated([[0.5, 0.5], [0.5, 0.625], [0.5, 0.4]]))[:, 1].tolist() == [0.0, 1.0, 0.0]


def test_energy():
    # z = (ln 1, ln 3): −ln(1 + 3) = −ln 4
    trace = make_trace(np.log([[[1.0, 3.0], [1.0, 9.0]]]))
    assert score("energy", trace) == pytest.approx([-log(4), -log(10)])
    assert leaves_at("energy", -2.0, trace) == 2


def test_energy_has_the_unit_of_the_logits_before_the_temperature():
    # z = (0, 2 ln 3) under T = 2 arrives as (0, ln 3): −2 · ln(1 + 3)
    trace = make_trace(np.log([[[1.0, 3.0], [1.0, 1.0]]]))
    assert score("energy", trace, temperatures=[2.0, 1.0]) == pytest.approx([-2 * log(4), -log(2)])


def test_fixed_counts_exits_from_1():
    assert [leaves_at("fixed", k, sequence(0, 1, 2)) for k in (1, 2, 3)] == [1, 2, 3]


def test_oracle_leaves_at_the_first_right_exit_else_at_the_last():
    trace = sequence(0, 1, 2, 1)
    for label, exit in ((0, 1), (1, 2), (2, 3)):
        trace.labels[:] = label
        assert leaves_at("oracle", None, trace) == exit
    wrong = sequence(0, 0, 0)
    wrong.labels[:] = 1
    assert leaves_at("oracle", None, wrong) == 3
