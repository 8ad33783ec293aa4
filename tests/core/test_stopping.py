"""Every signal that ends a process is handled as Ctrl-C is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from offramp._core import stopping as module
from offramp._core.stopping import Stopped, StopRequest, handled, postponing, stopping

ENDING = [getattr(signal, name) for name in module.SIGNALS if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Each test must leave the handlers as they were."""
    before = [signal.getsignal(number) for number in ENDING]
    yield
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_is_raised_as_ctrl_c(number: int) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, stopping():
        os.kill(os.getpid(), number)
    assert isinstance(caught.value, Stopped)
    assert caught.value.number == number


def test_one_event_that_sends_a_signal_twice_stops_once() -> None:
    cleaned = []

    @stopping()
    def closed_terminal() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append("up")

    with pytest.raises(Stopped):
        closed_terminal()
    assert cleaned == ["up"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_later_signal_ends_what_the_first_did_not(second: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONE_EVENT", 0.0)

    @stopping()
    def stubborn() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            os.kill(os.getpid(), second)

    with pytest.raises(Stopped) as caught:
        stubborn()
    assert caught.value.number == second


@pytest.mark.parametrize("number", ENDING)
def test_a_postponed_signal_is_raised_at_the_end(number: int) -> None:
    done = []

    @postponing()
    def save() -> None:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("saved")

    with pytest.raises(Stopped) as caught:
        save()
    assert (caught.value.number, done) == (number, ["saved"])


def test_a_second_ctrl_c_does_not_wait() -> None:
    request = StopRequest()
    with handled(request.note):
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.number == signal.SIGTERM
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as nohup does with SIGHUP
    try:
        with stopping():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_changes_no_handlers() -> None:
    handlers: list[object] = []

    def work() -> None:
        with postponing(), stopping():
            handlers.extend(signal.getsignal(number) for number in ENDING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(number) for number in ENDING]
