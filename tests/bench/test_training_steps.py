"""Training steps are timed against plain fine-tuning on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offramp._core import progress
from offramp._core.errors import ConfigError
from offramp.bench.training_steps import PLAIN, bench_training
from offramp.cli.main import run
from offramp.model import MultiExitForSequenceClassification
from offramp.training.options import TrainingOptions

OPTIONS = TrainingOptions(batch_size=8)


@pytest.fixture
def model(tiny_encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2, 4], labels=["n", "y"])


def test_ways_take_turns(
    model: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0)
    models = {"joint": model, "sweet": model, "two_stage": model}
    costs = bench_training(models, tiny_data["train"], OPTIONS, steps=4, rounds=2, progress=True)
    assert [cost.name for cost in costs] == [PLAIN, "joint", "sweet", "two_stage"]
    lines = capsys.readouterr().err.splitlines()
    names = [PLAIN, "joint", "sweet", "two_stage"]
    for done, name in enumerate([*names, *names[1:], PLAIN]):
        assert lines[done].startswith(f"time training steps: {done} of 8, {name}, ")
        assert lines[done].endswith(" to go") == (done > 0)  # the first turn has no pace yet
    assert [line.partition(",")[0] for line in lines[8:]] == [
        f"measure memory: {done} of 3" for done in (1, 2, 3)
    ]
    plain, joint, sweet, _ = costs
    assert plain.times_plain == 1
    assert all(cost.lowest <= cost.seconds <= cost.highest for cost in costs)
    assert all(cost.examples_per_second == pytest.approx(8 / cost.seconds) for cost in costs)
    # The same encoder and batch: joint holds what plain does, and heads; sweet a part of it.
    assert joint.activation_mib == pytest.approx(plain.activation_mib, rel=0.1)
    assert sweet.activation_mib < 0.7 * joint.activation_mib


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 3}, "at least one round and 4 steps, got 1, 1, 3"),
        ({"rounds": 0}, "at least one round"),
        ({"options": TrainingOptions(batch_size=64)}, "at least 4 batches of 64 examples"),
    ],
)
def test_what_cannot_be_timed(change: Any, message: str, model: Any, tiny_data: Any) -> None:
    settings = {"options": OPTIONS, "steps": 4, "rounds": 1} | change
    with pytest.raises(ConfigError, match=message):
        bench_training({"joint": model}, tiny_data["train"], **settings)


def test_from_the_command_line(
    tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "reviews.csv"
    rows = [f"a {'good' if i % 2 else 'bad'} film number {i},{i % 2}" for i in range(80)]
    table.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    command = f"bench train {table} --backbone {tiny_encoder} --exits 1 4 --strategies multi_model"
    small = f"--steps 4 --rounds 1 --batch-size 8 --output {tmp_path / 'out'} --json"
    assert run([*command.split(), *small.split()]) == 0
    assert '"name": "multi_model"' in capsys.readouterr().out
    assert (tmp_path / "out" / "record.json").exists()
