"""Where batches are cut, worked out by hand and against all ways to cut; and threads that share the work."""

from __future__ import annotations

from itertools import combinations
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.engine.compaction import CompactingEngine, Workers
from offramp.engine.segment_times import SegmentTimes, guess_times, plan_batches
from tests.engine.test_pools import Scripted, policy, texts

DEAR_START = SegmentTimes((100.0,), (1.0,), (0.0,), 0.0)
CHEAP_START = SegmentTimes((1.0,), (1.0,), (0.0,), 0.0)


def test_worked_out_by_hand() -> None:
    lengths = np.array([30, 30, 10, 10, 10])
    assert plan_batches(lengths, 8, DEAR_START) == [0], "padding of 60 tokens is cheaper than a start of 100"
    assert plan_batches(lengths, 8, CHEAP_START) == [0, 2]
    assert plan_batches(lengths, 2, DEAR_START) == [0, 2, 3]
    # 92 ms in all: with two threads no batch of several rows takes more than a quarter.
    assert plan_batches(lengths, 8, CHEAP_START, workers=2) == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=7),
    batch_size=st.integers(1, 7),
    fixed=st.floats(0, 100),
)
def test_no_way_to_cut_takes_less(lengths: list[int], batch_size: int, fixed: float) -> None:
    times = SegmentTimes((fixed, 1.0), (1.0, 0.5), (0.01, 0.0), 0.0)
    ordered = np.sort(np.array(lengths))[::-1]

    def ms(starts: tuple[int, ...]) -> float:
        ends = (*starts[1:], len(ordered))
        if any(end - start > batch_size for start, end in zip(starts, ends, strict=True)):
            return np.inf
        return sum(
            times.ms(k, end - start, int(ordered[start]))
            for start, end in zip(starts, ends, strict=True)
            for k in range(2)
        )

    inner = range(1, len(ordered))
    ways = [(0, *cuts) for n in range(len(ordered)) for cuts in combinations(inner, n)]
    found = plan_batches(ordered, batch_size, times)
    assert ms(tuple(found)) == pytest.approx(min(ms(way) for way in ways))
    shared = plan_batches(ordered, batch_size, times, workers=3)
    assert shared[0] == 0
    assert ms(tuple(shared)) < np.inf


def test_guessed_times_have_the_shape_of_the_flops() -> None:
    class Net:
        def flops(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.stack([7 + 3 * lengths, 9 + 5 * lengths + 2 * lengths**2], axis=1).astype(
                float
            ), lengths

    found = guess_times(Net())  # type: ignore[arg-type]
    assert len(found.fixed) == 2
    assert found.per_pair[0] == pytest.approx(0, abs=0.01)
    assert found.per_pair[1] == pytest.approx(2, rel=0.02)


def test_every_item_is_worked_on_once_and_by_every_thread() -> None:
    meeting, seen = Barrier(3, timeout=30), []

    def meet(item: int) -> None:
        meeting.wait()
        seen.append(item)

    Workers(3).each(meet, iter(range(9)))
    assert sorted(seen) == list(range(9))


def test_an_error_in_a_thread_is_raised() -> None:
    def fail(item: int) -> None:
        if item == 5:
            raise ValueError("five")

    for count in (1, 3):
        with pytest.raises(ValueError, match="five"):
            Workers(count).each(fail, range(20))


def test_threads_and_cuts_change_no_decision() -> None:
    script = np.random.default_rng(0).normal(size=(60, 3, 2)) * 2
    net = Scripted(script)
    encodings = texts([1 + i % 7 for i in range(60)])
    alone = CompactingEngine(net, policy(net), batch_size=4).run(encodings)
    times = SegmentTimes((5.0,) * 3, (1.0,) * 3, (0.0,) * 3, 0.0)
    for workers in (1, 2, 5):
        engine = CompactingEngine(net, policy(net), batch_size=16, times=times, workers=workers)
        found = engine.run(encodings)
        np.testing.assert_array_equal(found.exit, alone.exit)
        np.testing.assert_array_equal(found.prediction, alone.prediction)
        assert sum(engine.stats.rows) == 60
