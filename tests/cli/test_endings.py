"""Every command tries its target before it works, is the only writer there, and ends alike on every signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from offramp._core.run_folder import RunFolder
from offramp.cli.common import DataOptions
from offramp.cli.main import run

# With {} for the output.
COMMANDS = {
    "demo": "demo --output {}",
    "train": "train movies --output {}",
    "import": "import nowhere --layout deebert --output {}",
    "tune": "tune model movies --output {}/policy.json",
    "tune, a copy": "tune model movies --max-cost .5 --kept {}",
    "evaluate": "evaluate model --data movies",
    "comparison": "evaluate a b --data movies --output {}",
    "attack": "attack model movies --output {}",
    "conflict": "conflict model --data movies --output {}",
    "sweep": "sweep sweep.yaml --output {}",
    "export": "export model --output {}",
    "bench": "bench model movies --output {}",
    "bench attack": "bench attack model movies --output {}",
    "bench train": "bench train movies --output {}",
    "bench stream": "bench stream model movies --output {}",
    "bench coverage": "bench coverage model movies --output {}",
    "report": "report runs --output {}",
    "pack": "pack runs {}",
}
SHARED = (
    "demo",
    "import",
    "tune",
    "tune, a copy",
    "evaluate",
    "sweep",
    "export",
)  # lock elsewhere, or not at all
LONG = [name for name, line in COMMANDS.items() if " movies" in line and name != "demo"]


@pytest.fixture(autouse=True)
def nothing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for model in ("model", "a", "b"):
        Path(model).mkdir()
    Path("sweep.yaml").write_text("backbones: minilm-l3\ntasks: movies\nstrategies: joint\n")

    def load(*_: Any) -> None:
        raise AssertionError("it began to work")

    monkeypatch.setattr(DataOptions, "load", load)


def everything() -> list[str]:
    """All files and folders here."""
    return sorted(map(str, Path().rglob("*")))


BEFORE = ["a", "b", "file", "model", "sweep.yaml"]


def test_an_evaluation_whose_place_is_taken_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It has no output to choose: its results belong to the model."""
    Path("model", "evaluation").touch()
    assert run(COMMANDS["evaluate"].split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("offramp: cannot write model/evaluation ")
    assert said.endswith("choose another folder\n")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "evaluate"])
def test_a_target_that_cannot_be_written_is_refused_before_the_work(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(COMMANDS[name].format("file/x").split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("offramp: cannot write ")
    assert said.err.endswith(
        "(Not a directory): a file stands where a folder is needed: choose another folder\n"
    )
    assert everything() == BEFORE


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SHARED])
def test_a_folder_has_one_writer(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder(Path("out"), "run", mark="").lock():
        assert run(COMMANDS[name].format("out").split()) == 2
    assert capsys.readouterr().err == (
        "offramp: another process writes to out: wait until it ends, or give another folder\n"
    )


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)])
def test_a_signal_leaves_nothing_behind(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(DataOptions, "load", lambda *_: os.kill(os.getpid(), number))
    assert run(COMMANDS[name].format("out").split()) == 128 + number
    assert capsys.readouterr().err.endswith(
        "offramp: stopped: run the same command again, which resumes where it can\n"
    )
    assert everything() == BEFORE


@pytest.mark.parametrize("name", ["conflict", "bench", "attack"])
def test_the_record_of_another_command_is_not_replaced(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder(Path("out"), "run", mark="").record(command="evaluate", config={}, metrics={}, seed=0)
    assert run(COMMANDS[name].format("out").split()) == 2
    assert "out holds the record of 'offramp evaluate': give another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "command"), [("policy.json", "tune"), ("index.html", "report"), ("report.md", "report")]
)
def test_files_of_others_are_not_replaced(
    file: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    Path("out", file).write_text("years of work")
    assert run(COMMANDS[command].format("out").split()) == 2
    assert "give another" in capsys.readouterr().err
    assert Path("out", file).read_text() == "years of work"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("{} | true", 141, ""),
        ("{} > /dev/full", 2, "offramp: cannot write stdout (No space left on device): free some space"),
        ("{} 2>&- >/dev/null", 0, ""),
        ("{} 2>/dev/full >/dev/null", 0, ""),
    ],
)
def test_a_closed_or_full_stdout(shell: str, code: int, said: str) -> None:
    command = f"{sys.executable} -m offramp.cli.main data --json"
    line = "set -o pipefail; " + shell.format(command)
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert [text for text in ended.stderr.splitlines() if text.startswith("offramp")] == (
        [text for text in ended.stderr.splitlines() if text.startswith(said)] if said else []
    )
    assert "Traceback" not in ended.stderr
