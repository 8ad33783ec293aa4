"""`offramp sweep` and the report on it, as a user runs them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from offramp.cli import sweep as command
from offramp.cli.main import run
from offramp.cli.sweep import ProgressTable
from offramp.studies.training.plan import make_sweep


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("config")
    rows = [f"{row['text']},{row['label']}" for split in tiny_data.values() for row in split]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    (folder / "toy.yaml").write_text(
        f"""
        backbones: {{{tiny_encoder}: [1, 2]}}
        tasks: {{{folder / "reviews.csv"}: 48}}
        strategies: [joint, sweet]
        learning_rate: 1e-3
        training: {{max_steps: 2, batch_size: 8}}
        """
    )
    return folder / "toy.yaml"


def test_sweep_then_report(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["sweep", str(config), "--dry-run", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts == {"trials": 2, "done": 0, "failed": 0, "elsewhere": 0, "running": 0, "waiting": 2}
    assert not (tmp_path / "results").exists()

    assert run(["sweep", str(config), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["done"] == 2
    assert "[2/2]" in captured.err
    assert "/sweet/n48-lr0.001-seed0: done" in captured.err
    assert run(["sweep", str(config), "--json"]) == 0
    assert "joint/n48" not in capsys.readouterr().err  # nothing was run

    assert run(["report", "results/toy", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)
    assert {"report.md", "tables/differences.md", "tables/exits.md"} <= set(files)
    assert (
        run(["report", "results/toy", "--output", "bare", "--tables", "none", "--figures", "none", "--json"])
        == 0
    )
    assert set(json.loads(capsys.readouterr().out)) == {"report.md", "index.html"}
    assert all(Path(path).stat().st_size for path in files.values())


def test_a_trial_that_cannot_run(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = tmp_path / "deep.yaml"
    deep.write_text(config.read_text().replace("[1, 2]", "[1, 9]").replace("[joint, sweet]", "joint"))
    assert run(["sweep", str(deep), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "1 of 1 trials failed" in error
    assert "exit layers must lie in 1..4" in error
    assert run(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert "no sweep at" in capsys.readouterr().err


def test_the_board_tells_what_remains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: clock[0])
    plan = make_sweep(
        {
            "backbones": ["minilm-l6"],
            "tasks": {"sst2": 2000, "rte": "all"},
            "strategies": ["joint", "sweet"],
            "seeds": [0, 1],
        }
    )
    board = ProgressTable(plan)
    for trial in plan.trials:
        board.note(trial, "waiting", "")
    for trial in plan.trials[:3]:
        board.note(trial, "running", "")
        clock[0] += 60 if trial.method.name == "joint" else 30
        assert board.counts()["running"] == 1
        board.note(trial, "done", "")
    third = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[3/8]")]
    assert third[-1].endswith(", about 3 min 30 s to go")
    board.note(plan.trials[3], "running", "")
    board.note(plan.trials[3], "failed", "why")
    board.note(plan.trials[4], "running", "")
    clock[0] += 7
    assert board.remaining() == pytest.approx(2 * 60 + 2 * 30)
    console = Console(width=100, file=io.StringIO())
    console.print(board.view())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3 of 8 trials, about 3 min 00 s to go" in text
    assert "minilm-l6/sst2/joint/n2000-lrdefault-seed1, 7 s" in text
    rows = {line.split("│")[1].strip(): line.split() for line in text.splitlines() if "│" in line}
    assert {"1/2…", "1/2"} <= set(rows["minilm-l6, sst2, 2,000"])
    assert {"1/2", "0/2!"} <= set(rows["minilm-l6, rte, all"])


def test_many_methods_go_downwards() -> None:
    names = ["joint", "sweet", "two_stage", "mixed", "pcgrad"]
    plan = make_sweep({"backbones": ["minilm-l6"], "tasks": ["trec"], "strategies": names})
    console = Console(width=60, file=io.StringIO())
    console.print(ProgressTable(plan).view())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "minilm-l6, trec, all" in text
    assert all(name in text for name in names)
    assert "to go" not in text
