"""Quiet and JSON modes of every command, and the completion of the shell."""

from __future__ import annotations

import inspect
import json
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from offramp.cli import main as main_module
from offramp.cli.main import COMMANDS, SUBCOMMANDS, run

TARGETS = {
    **{name: target for name, (target, _) in COMMANDS.items()},
    **{
        f"{group} {name}": target
        for group, names in SUBCOMMANDS.items()
        for name, (target, _) in names.items()
    },
}
SERVICES = {"serve", "play"}  # they run until they are stopped, and have no result


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - SERVICES))
def test_every_command_has_a_json_mode(name: str) -> None:
    module, _, function = TARGETS[name].partition(":")
    assert "json" in inspect.signature(getattr(import_module(module), function)).parameters


def test_quiet_leaves_results_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"text {k},{k % 2}\n" for k in range(40)), encoding="utf-8")
    assert run(["data", str(table)]) == 0
    assert "'text': 'text " in capsys.readouterr().err  # an example, which is a remark
    assert run(["data", str(table), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "┃ split" in shown.err
    assert "'text': 'text " not in shown.err
    assert run(["--quiet", "data", str(table), "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out)["labels"]
    assert run(["data", str(tmp_path / "none.csv"), "--quiet", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("offramp: ")


def test_answers_on_stdout_leave_no_room_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "model", "rows.csv", "--json"]) == 2
    assert "where the answers go already: give their file with --output" in capsys.readouterr().err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed(shell: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--install-completion", "--shell", shell]) == 0
    (script,) = (path for path in home.rglob("*offramp*") if path.is_file())
    assert str(script) in capsys.readouterr().out
    text = script.read_text(encoding="utf-8")
    for word in ("train", "coverage", "--max-accuracy-drop", "--strategy"):
        assert word in text


@pytest.mark.parametrize(
    ("line", "completed"),
    [("offramp tra", "train"), ("offramp bench cov", "coverage"), ("offramp tune --max-c", "--max-cost")],
)
def test_bash_completes(line: str, completed: str, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    app = main_module.make_app(words=[main_module.COMPLETION, "bench"])
    script.write_text(app.generate_completion(shell="bash"), encoding="utf-8")
    command = f'. {script}; COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _offramp; echo "${{COMPREPLY[@]}}"'
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert completed in ended.stdout.split()


def test_an_unknown_shell_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--install-completion", "--shell", "tcsh"]) == 2
    assert '"tcsh"' in capsys.readouterr().err
    for name in ("ZSH_VERSION", "BASH_VERSION", "FISH_VERSION", "SHELL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")  # no `ps` that would name the parent process
    with pytest.raises(SystemExit):
        run(["--install-completion"])
    assert "Please specify --shell" in capsys.readouterr().err
    assert not [*home.rglob("*offramp*")]
