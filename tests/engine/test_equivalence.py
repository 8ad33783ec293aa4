"""Engine, trace and reference decide alike: every criterion, every batch size, every order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import DataError
from offramp._core.trace import Trace
from offramp.criteria import CRITERIA, make_criterion, scores, threshold_grid
from offramp.engine.agreement import check_agreement, near_threshold, run_reference
from offramp.engine.batching import windows
from offramp.engine.compaction import CompactingEngine
from offramp.engine.policy import Decisions, Policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes

from .toy_segments import ToyNet

NUMBERS = ("exit", "layer", "prediction", "flops")
CASES = [(name, "classification") for name in CRITERIA] + [
    (name, "regression") for name, rule in CRITERIA.items() if rule.regression
]


@dataclass(frozen=True)
class Case:
    """One drawn test case; what it is made of is printed where a property fails."""

    net: ToyNet
    policy: Policy
    encodings: list[dict[str, list[int]]]
    labels: Any
    trace: Trace


@st.composite
def cases(draw: st.DrawFn, name: str, kind: str) -> Case:
    """A net, texts and a policy. Logits are halves, so equal answers, ties and equal scores are common."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    exits, size = draw(st.integers(max(2, CRITERIA[name].min_exits), 5)), draw(st.integers(1, 7))
    classes = 1 if kind == "regression" else draw(st.integers(2, 4))
    spread = draw(st.sampled_from([1, 4, 60]))
    table = (random.integers(-spread, spread + 1, (exits, size, classes)) / 2).astype(np.float32)
    gates = random.random((exits, size)).astype(np.float32) if CRITERIA[name].needs_gate else None
    net = ToyNet(table, gates, kind)
    ids = draw(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=20))
    encodings = [{"input_ids": [row, *rest]} for row, rest in enumerate(ids)]
    labels = random.integers(0, classes, len(ids))
    temperatures = draw(st.sampled_from([None, tuple(random.uniform(0.3, 3.0, exits).tolist())]))
    trace = net.trace(encodings, labels)
    criterion = make_criterion(name, draw_threshold(draw, name, trace, temperatures))
    return Case(net, Policy(criterion, net.exit_layers, temperatures), encodings, labels, trace)


def draw_threshold(draw: st.DrawFn, name: str, trace: Trace, temperatures: Any) -> float:
    """Between two scores, exactly at a score, or at an end of the range."""
    rule = make_criterion(name)
    if name == "fixed":
        return draw(st.integers(1, trace.exits))
    if not rule.tunable or not len(trace):
        return float(rule.threshold)
    table = scores(rule, trace.scaled(temperatures))
    grid = threshold_grid(rule, table)
    low, high = rule.threshold_range
    at_a_score = np.unique(table[(table >= low) & (table <= high)])
    return float(draw(st.sampled_from(grid.tolist() + at_a_score.tolist())))


def assert_equal(found: Decisions, expected: Decisions, rows: Any) -> None:
    for field in NUMBERS:
        np.testing.assert_array_equal(
            getattr(found, field)[rows], getattr(expected, field)[rows], err_msg=field
        )
        assert getattr(found, field).dtype == getattr(expected, field).dtype, field
    np.testing.assert_allclose(found.probability[rows], expected.probability[rows], rtol=1e-12)
    if len(expected):  # without texts, the number of classes is unknown
        np.testing.assert_array_equal(found.logits[rows], expected.logits[rows])
    np.testing.assert_allclose(found.score[rows], expected.score[rows], rtol=1e-9, atol=1e-12)


def clear_rows(case: Case, decisions: Decisions) -> Any:
    """Rows outside float noise."""
    near = near_threshold(
        case.policy.criterion, scores(case.policy.criterion, case.trace.scaled(case.policy.temperatures))
    )
    near[:, -1] = False
    passed = np.arange(case.trace.exits) <= decisions.exit[:, None]
    return ~(near & passed).any(axis=1)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_engine_trace_and_reference_decide_alike(name: str, kind: str) -> None:
    @settings(deadline=None, max_examples=120)
    @given(cases(name, kind), st.integers(1, 22))
    def property(case: Case, batch_size: int) -> None:
        expected = case.policy.decide(case.trace)
        clear = clear_rows(case, expected)
        reference = run_reference(case.net, case.policy, case.encodings, case.labels)
        assert_equal(reference, expected, clear)
        for size in {1, 2, batch_size, len(case.encodings) + 1}:
            engine = CompactingEngine(case.net, case.policy, batch_size=size, pad_values={"input_ids": 5})
            decisions = engine.run(case.encodings, case.labels)
            assert_equal(decisions, expected, clear)
            agreement = check_agreement(decisions, case.trace, case.policy)
            assert agreement.holds, agreement
            assert agreement.within_noise == int((~clear).sum()) == engine.stats.near_threshold
            assert engine.stats.rows == tuple(np.bincount(decisions.exit, minlength=case.trace.exits))
            assert engine.stats.batches == -(-len(case.encodings) // size)

    property()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_order_of_the_texts_does_not_matter(name: str, kind: str) -> None:
    @settings(deadline=None, max_examples=50)
    @given(cases(name, kind), st.integers(1, 9), st.randoms(use_true_random=False))
    def property(case: Case, batch_size: int, random: Any) -> None:
        order = list(range(len(case.encodings)))
        random.shuffle(order)
        engine = CompactingEngine(case.net, case.policy, batch_size=batch_size)
        straight = engine.run(case.encodings, case.labels)
        shuffled = engine.run([case.encodings[i] for i in order], case.labels[order])
        clear = clear_rows(case, straight)[order]
        back = Decisions(*(getattr(straight, field)[order] for field in vars(straight)))
        assert_equal(shuffled, back, clear)

    property()


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(CASES).flatmap(lambda case: cases(*case)), st.integers(1, 9), st.data())
def test_a_row_leaves_at_its_cap_at_the_latest(case: Case, batch_size: int, data: st.DataObject) -> None:
    examples, exits = len(case.encodings), case.trace.exits
    caps = np.array(
        data.draw(st.lists(st.integers(0, exits), min_size=examples, max_size=examples)), dtype=np.intp
    )
    expected = case.policy.decide(case.trace, caps)
    np.testing.assert_array_equal(expected.exit, np.minimum(case.policy.decide(case.trace).exit, caps))
    times = SegmentTimes((1.0,) * exits, (0.001,) * exits, (0.0,) * exits, copy=0.001)
    for engine in (
        CompactingEngine(case.net, case.policy, batch_size=batch_size),
        PoolingEngine(case.net, case.policy, times, batch_size=batch_size),
    ):
        decisions = engine.run(case.encodings, case.labels, caps)
        assert_equal(decisions, expected, clear_rows(case, expected))


def test_caps_are_one_exit_for_each_text() -> None:
    net = ToyNet(np.zeros((2, 1, 2), dtype=np.float32))
    engine = CompactingEngine(net, Policy(make_criterion("confidence", 0.9), net.exit_layers))
    encodings = [{"input_ids": [0]}, {"input_ids": [1]}]
    for caps in (np.array([1]), np.array([0, -1])):
        with pytest.raises(DataError, match="at least 0 as the cap of each of the 2 texts, got shape"):
            engine.run(encodings, caps=caps)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(CASES).flatmap(lambda case: cases(*case)), st.integers(1, 9))
def test_a_segment_sees_exactly_those_who_have_not_left(case: Case, batch_size: int) -> None:
    case.net.log.clear()
    decisions = CompactingEngine(case.net, case.policy, batch_size=batch_size).run(
        case.encodings, case.labels
    )
    for k in range(case.trace.exits):
        ran = [name for entry in case.net.log if entry[:2] == ("run", k) for name in entry[2]]
        assert sorted(ran) == np.flatnonzero(decisions.exit >= k).tolist()
        taken = [name for entry in case.net.log if entry[:2] == ("take", k) for name in entry[2]]
        assert set(taken) <= set(np.flatnonzero(decisions.exit > k).tolist())
        assert len(taken) == len(set(taken))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(CASES).flatmap(lambda case: cases(*case)), st.integers(1, 3))
def test_decisions_of_a_window_are_those_of_a_run(case: Case, batch_size: int) -> None:
    if case.policy.criterion.name == "oracle":  # a stream has no labels
        return
    engine = CompactingEngine(case.net, case.policy, batch_size=batch_size)
    whole = engine.run(case.encodings)
    parts = [engine.run(window) for window in windows(case.encodings, engine.window * batch_size)]
    assert sum(len(part) for part in parts) == len(whole)
    if parts:
        joined = (np.concatenate([getattr(part, name) for part in parts]) for name in vars(whole))
        assert_equal(Decisions(*joined), whole, clear_rows(case, whole))
