"""Threads that share a request have cores of their own, and the caller gets its own back."""

from __future__ import annotations

import os
from threading import Barrier, Thread
from typing import Any

import pytest

from offramp.engine.compaction import Workers
from offramp.engine.cores import Cores

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system does not place threads"
)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may use eight cores of a larger machine."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread: {2, 3, 4, 5, 6, 7, 8, 9})


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_every_core_is_dealt_out_once(threads: int) -> None:
    sets = Cores(threads).sets
    assert len(sets) == threads
    assert sorted(core for cores in sets for core in cores) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert max(map(len, sets)) - min(map(len, sets)) <= 1


@pytest.mark.usefixtures("eight_cores")
def test_onnxruntime_counts_from_one_and_places_all_threads_but_the_caller() -> None:
    assert Cores(3).for_onnxruntime() == "4,7,10;5,8"
    assert Cores(1).for_onnxruntime() == Cores(9).for_onnxruntime() == ""


def test_a_caller_is_kept_for_a_while_and_only_one() -> None:
    before = os.sched_getaffinity(0)
    cores = Cores(2)
    if not cores.sets:
        pytest.skip("needs two cores")
    seen: list[set[int]] = []

    def other() -> None:
        with cores.caller():
            seen.append(os.sched_getaffinity(0))

    with cores.caller():
        assert os.sched_getaffinity(0) == cores.sets[0]
        os.sched_setaffinity(0, before)  # as for a thread that was there before
        thread = Thread(target=other)
        thread.start()
        thread.join()
    assert seen == [before]
    assert os.sched_getaffinity(0) == before
    other()
    assert seen[1] == cores.sets[0], "the first caller has gone"
    assert os.sched_getaffinity(0) == before


def test_a_caller_that_fails_gets_its_cores_back() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError):
        Workers(2).each(lambda item: 1 // item, [0])
    assert os.sched_getaffinity(0) == before


def test_workers_stay_on_their_cores() -> None:
    workers = Workers(2)
    if not (sets := Cores(2).sets):
        pytest.skip("needs two cores")
    meeting, seen = Barrier(2, timeout=30), []

    def look(item: int) -> None:
        meeting.wait()  # one item for each thread
        seen.append(frozenset(os.sched_getaffinity(0)))

    workers.each(look, range(2))
    assert sorted(map(sorted, seen)) == sorted(map(sorted, sets))


def test_a_system_that_forbids_it_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: Any) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    seen: list[int] = []
    Workers(2).each(seen.append, range(5))
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_a_system_without_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    cores = Cores(2)
    assert cores.sets == []
    assert cores.for_onnxruntime() == ""
    with cores.caller():
        cores.stay()
