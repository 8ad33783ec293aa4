"""`offramp runs`: the records below folders are listed, chosen and compared, and misspelt names get a hint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp._core.errors import ConfigError
from offramp._core.records import FILE_NAME
from offramp._core.run_files import pack
from offramp.cli.main import run
from offramp.reports.run_list import RunFilter, differences, list_runs

FROZEN = Path(__file__).parents[1] / "frozen" / "runs"


def bad(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error line of a command that has to fail with exit code 2."""
    capsys.readouterr()
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert run(["runs", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def names(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    return [values["run"] for values in listed(capsys, str(FROZEN), *words)["runs"]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--where command=attack", ["joint/attack-same-word"]),
        ("--where data=movies strategy=joint", ["joint/evaluation", "joint/attack-same-word"]),
        ("--where command=ev* --max cost=0.6", ["joint/evaluation"]),
        ("--where command=evaluate --max cost=0.5", []),
        ("--where command=attack --min gain_drop=9 --columns recipe gain_drop", []),
        ("--min accuracy=0.77 --max drop=0.1", ["joint/evaluation"]),
        ("--min gain_drop=1", ["joint/attack-same-word"]),
        ("--until 2026-11-22T19:57:05", ["joint"]),
        (
            "--since 2026-11-22T19:57:05+00:00 --until 2026-11-22T21:00:17+01:00",
            ["joint", "joint/evaluation"],
        ),
        ("--since 2026-11-27 --until 2026-11-27", ["bench-attack-minilm"]),
        ("--where command=train --where seed=0 exits=1,* versions.python=3.11.*", ["joint"]),
    ],
)
def test_runs_are_chosen(words: str, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert names(capsys, *words.split()) == expected


def test_all_are_listed_in_order_of_their_start(capsys: pytest.CaptureFixture[str]) -> None:
    runs = listed(capsys, str(FROZEN))["runs"]
    assert len(runs) == len(list(FROZEN.rglob(FILE_NAME))) + 1  # and train.json
    assert [values["started"] for values in runs] == sorted(values["started"] for values in runs)
    evaluation = next(values for values in runs if values["command"] == "evaluate")
    assert (evaluation["accuracy"], evaluation["strategy"], evaluation["exits"]) == (
        0.777,
        "joint",
        [1, 2, 4, 6],
    )


def test_tables_fit_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], ["--compare"], ["--columns", "command", "exits", "accuracy"]):
        capsys.readouterr()
        assert run(["runs", str(FROZEN), *words]) == 0
        shown = capsys.readouterr().err
        assert "joint/attack-same-word" in shown
        assert max(map(len, shown.splitlines())) <= 80


def test_what_differs_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    compared = listed(capsys, str(FROZEN), "--where", "command=bench", "data=sst2", "--compare")
    assert compared["runs"] == ["bench-train-mpnet", "bench-stream", "bench-promises", "bench-attack-minilm"]
    assert "command" not in compared["differences"]
    assert all(len(values) == 4 for values in compared["differences"].values())
    assert not {"path", "started", "seconds"} & set(compared["differences"])
    same = [{"run": "a", "lr": 1, "started": "x"}, {"run": "a", "lr": 1, "started": "y"}]
    assert differences(same) == {}
    assert differences([{"lr": 1, "gates": True}, {"lr": 2}]) == {"lr": [1, 2], "gates": [True, None]}
    assert differences([]) == {}


def test_several_folders_and_packed_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(FROZEN / "joint", tmp_path / "packed")
    both = listed(capsys, str(FROZEN / "joint"), str(tmp_path / "packed"))["runs"]
    assert len(both) == 6
    assert {values["run"] for values in both} >= {
        f"{folder.as_posix()}/evaluation" for folder in (FROZEN / "joint", tmp_path / "packed")
    }
    (tmp_path / "packed" / "broken.json").write_text("{", encoding="utf-8")
    assert "broken.json" in listed(capsys, str(tmp_path / "packed"))["left_out"][0]


def test_tables_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    record = (FROZEN / "joint" / "evaluation" / FILE_NAME).read_text(encoding="utf-8")
    (folder / FILE_NAME).write_text(record, encoding="utf-8")  # without its Parquet files
    assert [values["command"] for values in listed(capsys, str(tmp_path))["runs"]] == ["evaluate"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "comand=attack"], "unknown name of a value 'comand'. Did you mean 'command'?"),
        (["--where", "versions.torhc=2"], "Did you mean 'versions.torch'?"),
        (["--where", "command=atack"], "unknown command 'atack'. Did you mean 'attack'?"),
        (["--where", "attack"], "--where takes NAME=VALUE, such as data=movies, got 'attack'"),
        (["--min", "accuracy=high"], "--min takes NAME=VALUE, such as accuracy=0.8, got 'accuracy=high'"),
        (["--max", "cost=nan"], "the bound of cost must be a finite number, got nan"),
        (["--min", "recipe=1"], "recipe is no number in any of these runs"),
        (["--min", "acuracy=1"], "Did you mean 'accuracy'?"),
        (["--since", "yesterday"], "since must be a date or a time, such as 2026-11-22, got 'yesterday'"),
        (["--columns", "acuracy"], "Did you mean 'accuracy'?"),
        (["--where", "command=attack", "--compare"], "two runs are needed to compare"),
    ],
)
def test_a_wrong_question_gets_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in bad(["runs", str(FROZEN), *words], capsys)


def test_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no records at runs: it does not exist; give the folder" in bad(["runs"], capsys)
    assert "no run records below" in bad(["runs", str(tmp_path)], capsys)
    assert run(["runs", str(FROZEN), "--until", "2020-01-01"]) == 0
    assert "no run meets all conditions" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="until must be a date"):
        RunFilter(until="soon")
    assert len(list_runs([FROZEN / "joint"])[0]) == 3
