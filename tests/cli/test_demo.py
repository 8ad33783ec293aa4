"""The demo answers first, resumes, and always says how long the rest takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp._core.trace import Trace
from offramp.cli import demo as demo_module
from offramp.cli import first_look as first_look_module
from offramp.cli import steps as steps_module
from offramp.cli.first_look import choose, first_look, ladder
from offramp.cli.main import run
from offramp.cli.steps import Countdown, Step, run_steps
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.training.options import TrainingOptions

LABELS = ("negative", "positive")
TEXTS = ["a film", "a good film", "a very good and funny film with great charm and warm script"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    lines = [f"{row['text']}{end},{LABELS[row['label']]}" for split in tiny_data.values() for row in split
             for end in ("", " film", " plot")]  # fmt: skip
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return path


def traced(logits: list[list[list[float]]], labels: list[int]) -> Trace:
    """A trace of two exits, after layers 1 and 4."""
    values = np.array(logits, dtype=np.float32)
    flops = np.broadcast_to([1.0, 4.0], values.shape[:2]).copy()
    return Trace(values, (1, 4), flops, np.full(len(values), 4.0), labels=np.array(labels))


def policy(threshold: float = 0.8) -> Policy:
    return Policy(make_criterion("confidence", threshold), (1, 4))


SURE, UNSURE, SURER, WRONG = [0.0, 2.0], [0.1, 0.0], [0.0, 3.0], [3.0, 0.0]


def test_the_ladder_ends_where_the_text_leaves() -> None:
    rungs = traced([[UNSURE, SURE], [SURE, SURE]], [1, 1])
    first, last = (line.plain for line in ladder(rungs.take(np.array([0])), policy(), LABELS))
    assert first == "  layer  1  ██████████░░░░░░░░░░  0.52 negative, < 0.80: runs on"
    assert last == "  layer  4  ██████████████████░░  0.88 positive, the last exit"
    (only,) = (line.plain for line in ladder(rungs.take(np.array([1])), policy(), LABELS))
    assert only == "  layer  1  ██████████████████░░  0.88 positive, ≥ 0.80: leaves"


def test_the_chosen_text_leaves_early_with_the_right_answer() -> None:
    runs = [[UNSURE, SURE], [WRONG, WRONG], [SURE, SURE], [SURER, SURE]]
    readable = " ".join(["word"] * 10)
    assert choose(traced(runs, [1, 1, 1, 1]), policy(), [readable] * 4) == 3  # the upper of two medians
    assert choose(traced(runs, [1, 1, 1, 1]), policy(), [readable, "x", readable, "x"]) == 2
    assert choose(traced(runs, [1, 0, 0, 0]), policy(), ["x"] * 4) == 1
    assert choose(traced(runs[:2], [0, 1]), policy(), ["x"] * 2) == 1  # none is right: the earliest


def test_the_first_answer_shows_a_text_and_its_attack(
    table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(first_look_module, "READABLE", range(4, 9))
    options: dict[str, Any] = {
        "backbone": str(tiny_encoder),
        "exits": [1, 2, 4],
        "seed": 0,
        "training": TrainingOptions(learning_rate=0.003, batch_size=8),
    }
    first_look(str(table), tmp_path / "first", **options)
    shown = capsys.readouterr().err
    assert (tmp_path / "first" / "model" / "policy-confidence.json").is_file()
    before, _, after = shown.partition("The same sentence, attacked: up to 3 words change")
    assert "A sentence that leaves early\n“" in before
    assert before.count("leaves") == 2  # the title, and one exit
    assert "layer " in after or "no change of 3 words" in after
    first_look(str(table), tmp_path / "first", **options)  # the model is there
    again = capsys.readouterr().err
    assert again.partition("A sentence")[2] == shown.partition("A sentence")[2]


def test_the_demo_runs_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def recorder(name: str) -> Any:
        return lambda *args, **options: ran.append(name)

    for name in ("first_look", "fit", "evaluate", "attack", "report"):
        monkeypatch.setattr(demo_module, name, recorder(name))
    monkeypatch.setattr(demo_module.DataOptions, "load", recorder("load"))
    command = ["demo", "--output", str(tmp_path / "demo"), "--json"]
    assert run(command) == 0
    assert ran == ["first_look", *["load", "fit"] * 3, "evaluate", *["attack"] * 4, "report"]
    out, err = capsys.readouterr()
    assert json.loads(out)["output"] == str(tmp_path / "demo")
    assert "[1/10] a first answer: train a small model, and attack one sentence (about " in err
    assert "[10/10] done in 0 s" in err
    for strategy in demo_module.STRATEGIES:
        (tmp_path / "demo" / strategy).mkdir(parents=True)
        (tmp_path / "demo" / strategy / "train.json").touch()
    (tmp_path / "demo" / "comparison").mkdir()
    (tmp_path / "demo" / "comparison" / "record.json").touch()
    ran.clear()
    assert run([*command, "--quiet"]) == 0
    assert ran == ["first_look", *["attack"] * 4, "report"]
    assert capsys.readouterr().err == ""


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_countdown_follows_the_speed_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "PRIOR", 0.001)
    clock = Clock()
    countdown = Countdown([10.0, 20.0, 30.0], clock)
    assert countdown.remaining() == 60
    clock.now += 4
    assert countdown.remaining() == 56
    clock.now += 16  # twice the usual time
    assert countdown.remaining() == pytest.approx(2 * 50, rel=1e-3)
    assert countdown.finish_step() == 20
    assert countdown.remaining() == pytest.approx(100, rel=1e-3)
    clock.now += 40
    countdown.finish_step()
    assert countdown.remaining() == pytest.approx(60, rel=1e-3)
    clock.now += 30
    assert countdown.remaining() == pytest.approx(30, rel=1e-3)
    countdown.finish_step()
    assert countdown.remaining() == 0
    assert countdown.elapsed() == 90


@given(
    usual=st.lists(st.floats(0.1, 100), min_size=1, max_size=6),
    waits=st.lists(st.floats(0, 100), min_size=1, max_size=6),
)
def test_the_rest_takes_time_until_all_steps_have_ended(usual: list[float], waits: list[float]) -> None:
    clock = Clock()
    countdown = Countdown([*usual, 1.0], clock)
    for wait in waits[: len(usual)]:
        clock.now += wait
        assert countdown.remaining() >= 1.0 * steps_module.PRIOR / (sum(usual) + steps_module.PRIOR)
        countdown.finish_step()
    assert countdown.remaining() > 0


def test_a_failing_step_ends_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step("one", 1, lambda: 1 / 0), Step("two", 1, lambda: None)]
    with pytest.raises(ZeroDivisionError):
        run_steps(steps, "job")
    assert "two" not in capsys.readouterr().err
