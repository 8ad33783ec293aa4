from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.engine.timing import Timing, time_interleaved


class Clock:
    """A clock that only the timed calls move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes these times in turn, over and over."""

        def call() -> None:
            self.now += seconds[self.calls.count(name) % len(seconds)]
            self.calls.append(name)

        return call


def test_each_call_gets_its_own_times() -> None:
    clock = Clock()
    calls = {"a": clock.takes("a", 1.0, 2.0, 3.0), "b": clock.takes("b", 10.0)}
    times = time_interleaved(calls, repeats=6, warmup=0, clock=clock)
    assert times["a"].seconds.tolist() == [1, 2, 3, 1, 2, 3]
    assert times["b"].seconds.tolist() == [10] * 6
    assert times["a"].p50 == 2.0
    assert times["b"].p95 == 10.0


def test_rounds_are_interleaved_and_start_with_another_each_time() -> None:
    clock = Clock()
    time_interleaved({n: clock.takes(n, 1.0) for n in "abc"}, repeats=3, warmup=0, clock=clock)
    assert "".join(clock.calls) == "abc" + "bca" + "cab"


def test_warm_up_runs_and_is_not_counted() -> None:
    clock = Clock()
    times = time_interleaved(
        {"a": clock.takes("a", 100.0, 100.0, 1.0, 1.0)}, repeats=2, warmup=2, clock=clock
    )
    assert times["a"].seconds.tolist() == [1.0, 1.0]
    assert len(clock.calls) == 4


def test_quantiles_are_numpys() -> None:
    timing = Timing(np.arange(1.0, 101.0) / 1000)
    assert timing.p50 == pytest.approx(0.0505)
    assert timing.p95 == pytest.approx(0.09505)
    assert str(timing) == "50.50 ms (p95 95.05 ms, 100 repeats)"


def test_real_clock() -> None:
    times = time_interleaved({"sum": lambda: sum(range(1000))}, repeats=4, warmup=1)
    assert times["sum"].seconds.shape == (4,)
    assert (times["sum"].seconds > 0).all()


def test_garbage_collector_rests_and_comes_back_after_an_error() -> None:
    states = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise RuntimeError("out of memory")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="out of memory"):
        time_interleaved({"a": fail})
    assert states == [False]
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("calls", "repeats", "warmup"), [({}, 1, 0), ({"a": int}, 0, 0), ({"a": int}, 1, -1)]
)
def test_what_cannot_be_timed(calls: dict[str, Callable[[], object]], repeats: int, warmup: int) -> None:
    with pytest.raises(ConfigError, match=f"got {len(calls)} calls, repeats={repeats}, warmup={warmup}"):
        time_interleaved(calls, repeats=repeats, warmup=warmup)


def test_calls_before_each_timed_one_are_not_timed() -> None:
    log: list[str] = []
    time_interleaved(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")}, repeats=2, warmup=0, lead=2
    )
    assert log == list("aaabbb" + "bbbaaa")
