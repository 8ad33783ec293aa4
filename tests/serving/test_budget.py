"""The work budget never gives out more than it has, and one client cannot use up another's."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError
from offramp.serving.budget import TOTAL, Allowance, WorkBudget
from offramp.serving.hooks import Refusal


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reserved(caps, flops):
    return float(np.minimum(caps, flops).sum())


def test_full_depth_then_an_earlier_exit_then_a_refusal() -> None:
    clock = Clock()
    budget = WorkBudget(Allowance(rate=10, burst=100), least_share=0.25, clock=clock)
    flops = np.array([40.0, 20.0])
    assert np.isinf(budget.admit("a", flops)).all()  # 60 of 100
    caps = budget.admit("a", flops)  # 40 are left for 60
    assert caps.tolist() == pytest.approx([40 * 2 / 3, 20 * 2 / 3])
    refusal = budget.admit("a", flops)
    assert refusal == Refusal("your budget is used up: try again later", 1.5)  # 15 at 10 a second
    assert np.isinf(budget.admit("b", flops)).all()
    clock.now += 1.5
    assert reserved(budget.admit("a", flops), flops) == pytest.approx(15)


def test_what_was_not_used_comes_back_and_a_debt_is_paid_first() -> None:
    clock = Clock()
    budget = WorkBudget(Allowance(10, 100), Allowance(10, 200), clock=clock)
    flops = np.array([80.0])
    budget.admit("a", flops)
    budget.settle("a", 80.0, spent=30.0)
    assert budget.levels() == {"a": 70.0, TOTAL: 170.0}
    caps = budget.admit("a", flops)
    budget.settle("a", reserved(caps, flops), spent=75.0)  # its first exit cost more than the cap
    assert budget.levels() == {"a": -5.0, TOTAL: 95.0}
    assert budget.admit("a", flops) == Refusal("your budget is used up: try again later", 1.0)
    clock.now += 3600
    assert budget.levels() == {"a": 100.0, TOTAL: 200.0}


def test_refusing_instead_of_an_earlier_exit() -> None:
    budget = WorkBudget(Allowance(10, 100), beyond="refuse", clock=Clock())
    assert np.isinf(budget.admit("a", np.array([60.0]))).all()
    assert budget.admit("a", np.array([60.0])) == Refusal("your budget is used up: try again later", 2.0)
    assert budget.admit("a", np.full(3, 50.0)) == Refusal(
        "the request needs 150 FLOPs, and your budget never holds more than 100: send fewer texts", 6.0
    )


def test_the_total_is_shared() -> None:
    budget = WorkBudget(total=Allowance(10, 100), beyond="refuse", clock=Clock())
    assert np.isinf(budget.admit("a", np.array([60.0]))).all()
    refusal = budget.admit("b", np.array([60.0]))
    assert refusal == Refusal("the budget of all clients together is used up: try again later", 2.0)
    assert np.isinf(WorkBudget().admit("a", np.array([1e300]))).all()


def test_a_client_with_a_debt_is_not_forgotten() -> None:
    clock = Clock()
    budget = WorkBudget(Allowance(10, 100), clients=1, clock=clock)
    flops = np.array([50.0])
    budget.admit("a", flops)
    refusal = budget.admit("b", flops)
    assert refusal == Refusal("the service tracks 1 clients already: try again later", 5.0)
    clock.now += 5  # full again, but its request still runs
    assert isinstance(budget.admit("b", flops), Refusal)
    budget.settle("a", 50.0, 50.0)
    assert np.isinf(budget.admit("b", flops)).all()
    assert list(budget.levels()) == ["b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Allowance(0, 5), "rate must be a positive number of FLOPs, got 0"),
        (lambda: Allowance(5, float("nan")), "burst must be a positive number of FLOPs, got nan"),
        (
            lambda: WorkBudget(beyond="later"),
            "unknown answer beyond the budget 'later'. Known: earlier-exit, refuse",
        ),
        (lambda: WorkBudget(clients=0), "clients must be a whole number of at least 1, got 0"),
        (
            lambda: WorkBudget(least_share=20),
            "least_share is a share between 0 and 1, got 20: write 0.2 for 20 %",
        ),
    ],
)
def test_options_are_checked(make, message) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == message


STEPS = st.lists(
    st.tuples(
        st.floats(0, 5),  # seconds until the request
        st.sampled_from("abc"),
        st.lists(st.floats(0.5, 60), min_size=1, max_size=4),  # FLOPs of its rows
        st.floats(0, 1),  # share of what was reserved that it uses
        st.integers(0, 3),  # requests later it is settled
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS, st.sampled_from(["earlier-exit", "refuse"]), st.floats(0, 0.5))
def test_no_one_spends_more_than_burst_and_rate(steps, beyond, least_share) -> None:
    clock = Clock()
    client, total = Allowance(7, 90), Allowance(11, 150)
    budget = WorkBudget(client, total, beyond=beyond, least_share=least_share, clock=clock)
    used = dict.fromkeys("abc", 0.0)  # spent, or reserved and still running
    running: list[tuple[int, str, float, float]] = []
    for number, (wait, name, rows, share, delay) in enumerate(steps):
        clock.now += wait
        for late in [item for item in running if item[0] <= number]:
            running.remove(late)
            budget.settle(*late[1:])
            used[late[1]] -= late[2] - late[3]
        flops = np.array(rows)
        caps = budget.admit(name, flops)
        if isinstance(caps, Refusal):
            assert caps.retry_after >= 1
        else:
            reserve = reserved(caps, flops)
            assert reserve >= least_share * flops.sum() - 1e-9
            used[name] += reserve
            running.append((number + delay, name, reserve, share * reserve))
        elapsed = clock.now - 100.0
        assert max(used.values()) <= client.burst + client.rate * elapsed + 1e-6
        assert sum(used.values()) <= total.burst + total.rate * elapsed + 1e-6


@settings(deadline=None)
@given(STEPS)
def test_a_flood_does_not_change_what_an_honest_client_gets(flood) -> None:
    """The total holds two clients' allowances, so the flooding client cannot reach the other's."""

    def honest(with_flood: bool) -> list[list[float]]:
        clock = Clock()
        budget = WorkBudget(Allowance(10, 100), Allowance(20, 200), clock=clock)
        answers = []
        for wait, _, rows, share, _ in flood:
            clock.now += wait
            flops = np.array(rows)
            for _ in range(5 if with_flood else 0):
                budget.admit("flood", np.full(4, 100.0))
            caps = budget.admit("honest", flops)
            answers.append([0.0] if isinstance(caps, Refusal) else caps.tolist())
            if not isinstance(caps, Refusal):
                budget.settle("honest", reserved(caps, flops), share * reserved(caps, flops))
        return answers

    assert honest(True) == [pytest.approx(answer) for answer in honest(False)]


def test_threads_together_get_no_more_than_the_burst() -> None:
    clock = Clock()
    budget = WorkBudget(total=Allowance(1, 1000), beyond="refuse", clock=clock)
    admitted: list[str] = []

    def ask(name: str) -> None:
        for _ in range(200):
            if not isinstance(budget.admit(name, np.array([4.0])), Refusal):
                admitted.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 250
    assert budget.levels() == {TOTAL: 0.0}
