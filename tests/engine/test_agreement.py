from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import CriterionError, DataError
from offramp.criteria import make_criterion
from offramp.engine.agreement import check_agreement
from offramp.engine.compaction import CompactingEngine
from offramp.engine.policy import Policy

from .toy_segments import Scripted, ToyState, texts

SURE, UNSURE = [0.0, 4.0], [0.5, 0.0]
MIDDLE = float(np.exp(0.5) / (1 + np.exp(0.5)))  # the confidence of UNSURE
SCRIPT = [[UNSURE, UNSURE, SURE], [SURE, UNSURE, UNSURE], [[2.0, 0.0], SURE, SURE], [SURE, SURE, UNSURE]]


def setup(threshold: float = 0.9) -> tuple[Any, ...]:
    net = Scripted(SCRIPT)
    policy = Policy(make_criterion("confidence", threshold), net.exit_layers)
    encodings = texts([1, 2, 3, 4])
    return CompactingEngine(net, policy).run(encodings), net.trace(encodings), policy


def test_equal_decisions_agree() -> None:
    agreement = check_agreement(*setup())
    assert agreement.holds
    assert (agreement.compared, agreement.same_exit, agreement.same_label, agreement.within_noise) == (
        4,
        4,
        4,
        0,
    )
    assert str(agreement) == "same exit 4/4, same label 4/4, 0 within noise"


def test_another_exit_and_another_label_are_found_each() -> None:
    decisions, trace, policy = setup()
    exit, prediction = decisions.exit.copy(), decisions.prediction.copy()
    exit[1] += 1
    prediction[3] = 0
    agreement = check_agreement(replace(decisions, exit=exit, prediction=prediction), trace, policy)
    assert not agreement.holds
    assert agreement.mismatches.tolist() == [1, 3]
    assert (agreement.compared, agreement.same_exit, agreement.same_label) == (4, 3, 3)
    assert str(agreement).endswith("first mismatches: [1, 3]")


@pytest.mark.parametrize("offset", [-0.9e-5, 0.9e-5])
def test_rows_at_the_threshold_are_exempt_whatever_they_did(offset: float) -> None:
    decisions, trace, policy = setup(MIDDLE + offset)
    exit = decisions.exit.copy()
    exit[0] = 1  # its first exit's score is at the threshold
    agreement = check_agreement(replace(decisions, exit=exit), trace, policy)
    assert agreement.holds
    assert (agreement.compared, agreement.within_noise) == (3, 1)


def test_a_row_that_is_at_the_threshold_only_after_it_left_is_compared() -> None:
    decisions, trace, policy = setup(MIDDLE + 1e-6)
    exit = decisions.exit.copy()
    exit[1] = 2  # sure at the first exit; the second exit's score is at the threshold, but nobody asked it
    assert check_agreement(replace(decisions, exit=exit), trace, policy).mismatches.tolist() == [1]


def test_the_last_exit_knows_no_noise() -> None:
    net = Scripted([[[0.2, 0.0], UNSURE]])
    policy = Policy(make_criterion("confidence", MIDDLE), net.exit_layers)
    decisions = CompactingEngine(net, policy).run(texts([1]))
    assert check_agreement(decisions, net.trace(texts([1])), policy).within_noise == 0


def test_a_count_at_its_threshold_is_compared() -> None:
    net = Scripted(SCRIPT)
    policy = Policy(make_criterion("patience", 1), net.exit_layers)
    decisions = CompactingEngine(net, policy).run(texts([1, 2, 3, 4]))
    agreement = check_agreement(decisions, net.trace(texts([1, 2, 3, 4])), policy)
    assert (agreement.compared, agreement.within_noise) == (4, 0)


def test_an_engine_that_mixes_rows_is_found() -> None:
    class Mixed(Scripted):
        def take(self, state: ToyState, rows: Any) -> ToyState:
            return super().take(state, rows[::-1])

    net, good = Mixed(SCRIPT), Scripted(SCRIPT)
    policy = Policy(make_criterion("confidence", 0.9), net.exit_layers)
    agreement = check_agreement(
        CompactingEngine(net, policy).run(texts([1] * 4)), good.trace(texts([1] * 4)), policy
    )
    assert agreement.mismatches.tolist() == [0, 2]


def test_regression_values_may_differ_by_rounding() -> None:
    net = Scripted([[[1.0], [3.0]]], kind="regression")
    policy = Policy(make_criterion("patience", 1), net.exit_layers)
    decisions = CompactingEngine(net, policy).run(texts([1]))
    trace = net.trace(texts([1]))
    assert check_agreement(replace(decisions, prediction=decisions.prediction + 1e-5), trace, policy).holds
    assert not check_agreement(
        replace(decisions, prediction=decisions.prediction + 1e-3), trace, policy
    ).holds


def test_other_data_or_another_policy_are_refused() -> None:
    decisions, trace, policy = setup()
    with pytest.raises(DataError, match="4 decisions for a trace of 2 examples"):
        check_agreement(decisions, trace.take(np.array([0, 1])), policy)
    with pytest.raises(CriterionError, match="tune it again"):
        check_agreement(decisions, trace, replace(policy, exit_layers=(1, 2, 3)))


def test_equally_sure_exits_with_other_answers_are_noise_for_recall() -> None:
    script = [[[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]], [[4.0, 0.0], [0.0, 2.0], [1.0, 0.0]]]
    net = Scripted(script)
    policy = Policy(make_criterion("confidence", 2.0), net.exit_layers, recall=True)
    decisions = CompactingEngine(net, policy).run(texts([1, 2]))
    assert decisions.prediction.tolist() == [1, 0]
    other = replace(decisions, prediction=1 - decisions.prediction)
    agreement = check_agreement(other, net.trace(texts([1, 2])), policy)
    assert (agreement.within_noise, agreement.mismatches.tolist()) == (1, [1])
