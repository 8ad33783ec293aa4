"""Pools change when rows run and with whom, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError
from offramp.engine.agreement import run_reference
from offramp.engine.compaction import CompactingEngine
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import SegmentTimes, positive_fit, stretched

from .test_compaction import SURE, UNSURE, policy
from .test_equivalence import CASES, Case, assert_equal, cases, clear_rows
from .toy_segments import Scripted, texts


def times(exits: int, fixed: float = 1.0, copy: float = 0.0) -> SegmentTimes:
    return SegmentTimes((fixed,) * exits, (0.01,) * exits, (0.0,) * exits, copy)


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    return draw(cases(*draw(st.sampled_from(CASES))))


@settings(max_examples=400, deadline=None)
@given(
    case=any_case(),
    size=st.integers(1, 9),
    fixed=st.sampled_from([0.0, 0.02, 5.0]),
    order=st.randoms(use_true_random=False),
)
def test_pools_decide_as_the_slow_twin_in_every_order_and_batch_size(
    case: Case, size: int, fixed: float, order: Any
) -> None:
    places = list(range(len(case.encodings)))
    order.shuffle(places)
    engine = PoolingEngine(case.net, case.policy, times(case.trace.exits, fixed, 0.001), batch_size=size)
    shuffled = engine.run([case.encodings[i] for i in places], case.labels[places])
    slow = run_reference(case.net, case.policy, case.encodings, case.labels)
    back = np.argsort(np.array(places, dtype=np.intp), kind="stable")
    found = type(shuffled)(**{name: values[back] for name, values in vars(shuffled).items()})
    assert_equal(found, slow, clear_rows(case, slow))


def test_survivors_of_two_batches_run_on_together() -> None:
    net = Scripted([[SURE, SURE], [UNSURE, SURE], [UNSURE, SURE], [SURE, SURE]])
    engine = PoolingEngine(net, policy(net), times(2), batch_size=2)
    assert engine.run(texts([3, 3, 3, 3])).exit.tolist() == [0, 1, 1, 0]
    runs = [entry for entry in net.log if entry[0] == "run"]
    assert runs == [("run", 0, [0, 1]), ("run", 0, [2, 3]), ("run", 1, [1, 2])]


def test_rows_of_another_length_are_not_waited_for() -> None:
    net = Scripted([[UNSURE, SURE]] * 2)
    engine = PoolingEngine(net, policy(net), times(2), batch_size=1)
    engine.batch_size = 2  # two texts a full batch, but only one of each length
    engine.run(texts([3, 2]), None)
    assert [entry[:2] for entry in net.log if entry[0] == "join"] == []


def test_nobody_waits_where_it_does_not_pay() -> None:
    net = Scripted([[UNSURE, SURE], [SURE, SURE], [UNSURE, SURE], [SURE, SURE]])
    PoolingEngine(net, policy(net), times(2, fixed=0.0), batch_size=2).run(texts([3] * 4))
    assert [entry for entry in net.log if entry[0] == "run" and entry[1] == 1] == [
        ("run", 1, [0]),
        ("run", 1, [2]),
    ]


def test_what_pays_worked_out_by_hand() -> None:
    found = SegmentTimes((1.0, 2.0), (0.1, 0.0), (0.0, 0.01), copy=0.05)
    assert found.ms(0, 3, 10) == pytest.approx(1 + 0.1 * 30)
    assert found.ms(1, 3, 10) == pytest.approx(2 + 0.01 * 300)
    np.testing.assert_allclose(found.leaving(np.array([10, 20])), [[2, 5], [3, 9]])
    # A quarter of a batch saves three quarters of 1 ms: 15 copied tokens are as dear.
    assert found.waiting_pays(0, 1, 14, 4)
    assert not found.waiting_pays(0, 1, 16, 4)
    assert SegmentTimes.from_dict(asdict(found)) == found
    with pytest.raises(ConfigError, match="expected the fields of SegmentTimes"):
        SegmentTimes.from_dict({"fixed": [1.0]})


def test_times_are_fitted_and_never_negative() -> None:
    powers = np.array([(1, n, n * n) for n in (1, 2, 4, 8)], dtype=float)
    np.testing.assert_allclose(positive_fit(powers, powers @ [2.0, 0.5, 0.1]), [2, 0.5, 0.1], rtol=1e-6)
    assert (positive_fit(powers, np.array([4.0, 3.0, 2.0, 1.0])) >= 0).all()
    batch = stretched({"input_ids": [5, 6], "token_type_ids": [0, 1]}, 2, 3)
    assert batch["input_ids"].tolist() == [[5, 6, 5]] * 2
    assert batch["attention_mask"].tolist() == [[1, 1, 1]] * 2


def test_threads_share_one_engine() -> None:
    script = np.random.default_rng(0).normal(size=(60, 3, 2)) * 2
    net = Scripted(script)
    encodings = texts([1 + i % 7 for i in range(60)])
    for engine in (
        CompactingEngine(net, policy(net), batch_size=4),
        PoolingEngine(net, policy(net), times(3), batch_size=4),
    ):
        alone = engine.run(encodings)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(engine.run, [encodings] * 16):
                np.testing.assert_array_equal(found.exit, alone.exit)
                np.testing.assert_array_equal(found.prediction, alone.prediction)


def test_misuse() -> None:
    net = Scripted([[SURE, SURE]])
    with pytest.raises(ConfigError, match="times of 2 segments, got 3"):
        PoolingEngine(net, policy(net), times(3))
