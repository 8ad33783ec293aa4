"""Whose turn it is in the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.serving.fair_queue import REMEMBERED, FairQueue, Ticket
from offramp.serving.hooks import Submission


def ticket(client: str, flops: float = 1.0, deadline: float = 0.0, rows: int = 1) -> Ticket:
    share = np.full(rows, flops / rows)
    submission = Submission(client, "m", [{"input_ids": [1]}] * rows, share, np.full(rows, np.inf))
    return Ticket(submission, None, deadline)


def filled(*tickets: Ticket) -> FairQueue:
    queue = FairQueue()
    for each in tickets:
        queue.push(each)
    return queue


def drained(queue: FairQueue) -> Iterator[Ticket]:
    while queue:
        first = queue.first()
        assert queue.pop() is first
        yield first


def clients(queue: FairQueue) -> str:
    return "".join(each.client for each in drained(queue))


def test_a_client_that_floods_the_queue_waits_for_itself() -> None:
    queue = filled(*[ticket("a") for _ in range(6)])
    assert [queue.pop().client for _ in range(2)] == ["a", "a"]
    for _ in range(2):
        queue.push(ticket("b"))
    assert clients(queue) == "babaaa"


def test_turns_count_flops() -> None:
    queue = filled(*[ticket("a", 3) for _ in range(3)], *[ticket("b") for _ in range(7)])
    assert clients(queue) == "abbbabbbab"


def test_the_earliest_deadline_of_a_client_goes_first_and_buys_nothing_from_others() -> None:
    queue = filled(ticket("b", deadline=9), *[ticket("a", deadline=i) for i in (3, 1, 2)])
    order = [(each.client, each.deadline) for each in drained(queue)]
    assert order == [("b", 9), ("a", 1), ("a", 2), ("a", 3)]


def test_a_client_that_was_away_gets_no_credit() -> None:
    queue = filled(ticket("b"), *[ticket("a") for _ in range(50)])
    for _ in range(45):
        queue.pop()
    for _ in range(6):
        queue.push(ticket("b"))
    assert clients(queue) == "babababababa"


@pytest.mark.parametrize(("spent", "order"), [(10, "bbbbbabbbbaa"), (2, "bbbbbababbba")])
def test_what_a_ticket_did_not_cost_is_given_back(spent: float, order: str) -> None:
    queue = filled(*[ticket("a", 10) for _ in range(4)], *[ticket("b", 2) for _ in range(9)])
    queue.give_back(queue.pop(), spent)
    assert clients(queue)[: len(order)] == order


def test_room_in_the_queue() -> None:
    queue = filled()
    assert queue.fits("a", 99, limit=8)  # a request that is larger than the queue, while nothing waits
    queue.push(ticket("a", rows=6))
    assert queue.fits("a", 2, limit=8)
    assert not queue.fits("a", 3, limit=8)
    queue.push(ticket("a", rows=2))
    assert queue.fits("b", 4, limit=8)  # half of a full queue
    assert not queue.fits("b", 5, limit=8)
    queue.push(ticket("b", rows=4))
    assert not queue.fits("a", 1, limit=8)
    assert queue.fits("c", 2, limit=8)
    assert not queue.fits("c", 3, limit=8)
    assert queue.rows == 12
    assert clients(queue) == "aba"
    assert queue.rows == 0


def test_clients_that_left_are_forgotten() -> None:
    queue = filled(*[ticket("busy", 1e12) for _ in range(2)])
    for i in range(2 * REMEMBERED):
        queue.push(ticket(f"{i}"))
        queue.pop()
        assert len(queue._work) <= REMEMBERED + 10
    assert len(queue._client_rows) == 2
    assert clients(queue).endswith("busy")
    assert not queue._client_rows
    assert not queue._work


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 50), st.integers(0, 9), st.booleans()), max_size=60
    )
)
def test_every_ticket_leaves_once_and_busy_clients_get_the_same_work(steps: Any) -> None:
    queue, waiting = FairQueue(), Counter[str]()
    work: Counter[str] = Counter()  # since all three began to wait
    for client, flops, deadline, leave in steps:
        queue.push(ticket(client, flops, deadline))
        waiting[client] += 1
        if leave:
            taken = queue.pop()
            waiting[taken.client] -= 1
            work[taken.client] += taken.flops
        if not all(waiting[name] for name in "abc"):
            work.clear()
        # Two clients that wait all the time differ by no more than a ticket of each.
        assert max(work.values(), default=0) - min((work[name] for name in "abc"), default=0) <= 100
    assert sum(1 for _ in drained(queue)) == waiting.total()
    assert queue.rows == 0
