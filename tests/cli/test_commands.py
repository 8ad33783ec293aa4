"""The commands as a user runs them, on a tiny real model and a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offramp._core.records import read_records
from offramp.bench.attacks import REFERENCE, REFERENCE_STOPS
from offramp.cli.main import COMMANDS, SUBCOMMANDS, run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Path:
    """A CSV file with column names of its own."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    rows = [row for split in tiny_data.values() for row in split]
    pairs = [
        (row["text"] + end, "good" if row["label"] else "bad")
        for row in rows
        for end in ("", " film", " plot")
    ]
    lines = ["review,verdict", *(f"{text},{verdict}" for text, verdict in pairs)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def columns() -> list[str]:
    return ["--text", "review", "--label", "verdict"]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, table: Path, columns: list[str], tiny_encoder: Path
) -> Path:
    """Two trained models."""
    folder = tmp_path_factory.mktemp("runs")
    for strategy in ("joint", "multi_model"):
        arguments = ["train", str(table), "--output", str(folder / strategy), "--backbone", str(tiny_encoder)]
        arguments += ["--exits", "1", "2", "4", "--strategy", strategy, "--learning-rate", "0.003"]
        assert run([*arguments, *columns, "--epochs", "3", "--batch-size", "8"]) == 0
    return folder


def test_train_tune_evaluate_attack_report(
    runs: Path, table: Path, columns: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    joint, cascade = str(runs / "joint"), str(runs / "multi_model")
    capsys.readouterr()
    assert run(["tune", joint, str(table), *columns, "--max-accuracy-drop", "0.05", "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)
    assert tuned["full"] - tuned["reached"] <= 0.05
    assert tuned["cost"] < 1

    assert run(["evaluate", joint, cascade, "--data", str(table), *columns, "--timed", "16", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["models"]
    assert measured["joint"]["score"] > 0.7
    assert measured["joint"]["cost"] < 1

    attack = [
        "attack",
        joint,
        str(table),
        *columns,
        "--examples",
        "8",
        "--rounds",
        "2",
        "--similarity",
        "none",
    ]
    assert run([*attack, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["adversarial_depth"] >= found["clean_depth"]
    assert run([*attack, "--recipe", "random-word"]) == 0
    assert run(["report", str(runs), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)
    assert "index.html" in files
    assert all(Path(path).stat().st_size for path in files.values())
    commands = {record["command"].split()[-1] for record in read_records(runs)}
    assert {"train", "evaluate", "compare", "attack"} <= commands
    card = (runs / "joint" / "model" / "README.md").read_text(encoding="utf-8")
    for title in (
        "training examples of reviews",
        "| confidence |",
        "On the validation split",
        "| same-word |",
    ):
        assert title in card


def test_attacks_are_timed_on_examples_under_a_rule(
    runs: Path, table: Path, columns: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [
        "--examples",
        "2",
        "--seed",
        "3",
        "--criterion",
        "margin",
        "--recipes",
        "same-word",
    ]
    bench = ["bench", "attack", str(runs / "joint"), str(table), *columns, *chosen, "--rounds", "1"]
    capsys.readouterr()
    assert run([*bench, "--output", str(tmp_path), "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)["rows"]} == {
        "same-word",
        REFERENCE_STOPS,
        REFERENCE,
    }
    record = read_records(tmp_path)[0]
    told = record["config"]
    assert (told["examples"], told["criterion"], told["split"], record["seed"]) == (
        2,
        "margin",
        "validation",
        3,
    )


def test_an_attack_goes_on_and_other_options_are_refused(
    runs: Path, table: Path, columns: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = ["attack", str(runs / "joint"), str(table), *columns, "--examples", "4", "--similarity", "none"]
    attack += ["--output", str(tmp_path / "attack")]
    assert run([*attack, "--rounds", "1"]) == 0
    assert run([*attack, "--rounds", "1"]) == 0
    capsys.readouterr()
    assert run([*attack, "--workers", "2"]) == 2
    assert "--workers is for --engine ray" in capsys.readouterr().err
    assert run([*attack, "--rounds", "2"]) == 2
    assert "another attack (rounds 1 there, 2 here)" in capsys.readouterr().err
    assert run([*attack, "--rounds", "2", "--restart"]) == 0


def test_options_can_stand_in_a_file(table: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        f"data: {table}\noutput: {tmp_path / 'run'}\nbackbone: {tiny_encoder}\nexits: [2, 4]\n"
        "strategy: joint\ntext: review\nlabel: verdict\nmax_steps: 2\n"
    )
    assert run(["train", "--config", str(config)]) == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["exits"] == [2, 4]
    assert settings["max_steps"] == 2


def bad(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error line of a command that has to fail with exit code 2."""
    capsys.readouterr()
    assert run(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("offramp: ")]
    assert len(lines) == 1
    return lines[0]


def test_every_misuse_is_one_clear_line(
    runs: Path,
    table: Path,
    columns: list[str],
    tiny_encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, data = str(runs / "joint"), str(table)
    out = ["--output", str(tmp_path / "out")]
    train = ["train", data, *columns, "--backbone", str(tiny_encoder), *out]
    assert "Did you mean" in bad(["trian"], capsys)
    assert "--ouptut" in bad(["train", data, "--ouptut", "x"], capsys)
    assert "review" in bad(["train", data, "--text", "reveiw", "--label", "verdict", *out], capsys)
    assert "Did you mean 'sweet'" in bad([*train, "--strategy", "sweat"], capsys)
    assert "1..4" in bad([*train, "--exits", "1", "9"], capsys)
    assert "must increase" in bad([*train, "--exits", "4", "1"], capsys)
    assert "no such" in bad(["tune", str(tmp_path / "no such"), data, *columns], capsys).lower()
    assert "Did you mean 'confidence'" in bad(
        ["tune", model, data, *columns, "--criterion", "confidnce"], capsys
    )
    assert "gates" in bad(["tune", model, data, *columns, "--criterion", "learned"], capsys)
    assert "calibration" in bad(
        ["evaluate", model, "--data", data, *columns, "--split", "calibration"], capsys
    )
    assert "test" in bad(["evaluate", model, "--data", data, *columns, "--split", "test"], capsys)
    assert "Known" in bad(["attack", model, data, *columns, "--recipe", "same-wrod"], capsys)
    assert "disagreement_weight" in bad(
        ["attack", model, data, *columns, "--disagreement-weight", "7"], capsys
    )
    assert "no run records" in bad(["report", str(tmp_path)], capsys)
    assert "nowhere.csv" in bad(["data", str(tmp_path / "nowhere.csv")], capsys)
    assert "none.yaml" in bad(["train", "--config", str(tmp_path / "none.yaml")], capsys)
    assert not (tmp_path / "out").exists()  # nothing written half


def test_data_shows_what_there_is(
    table: Path, columns: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "--json"]) == 0
    assert {"movies", "sst2"} <= set(json.loads(capsys.readouterr().out)["names"])
    assert run(["data", str(table), *columns, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["labels"] == ["bad", "good"]
    assert {row["split"] for row in shown["splits"]} >= {"train", "calibration", "validation"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: offramp" in shown
    if command not in ("play", "predict", "serve"):  # their output is the answers themselves
        assert "--json" in shown


def test_cascade_and_model_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    from offramp.cli.evaluate import model_names

    assert model_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert model_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_the_list_of_commands_says_what_each_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, line) in COMMANDS.items():
        assert name in shown
        assert line in shown
    assert run(["tune", "--help"]) == 0
    assert "the calibration split" in capsys.readouterr().out  # its own words, not the list's


def test_the_list_of_benchmarks_says_what_each_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(line in shown for _, line in SUBCOMMANDS["bench"].values())
    assert run(["bench", "train", "--help"]) == 0
    assert "every strategy against a plain classifier" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("module", ["torch", "pydantic", "pandas", "jinja2"])
def test_a_missing_library_gives_the_line_that_installs_it(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def data(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=f"{module}.core")

    monkeypatch.setattr("offramp.data.load_data", data)
    assert "pip install 'offramp[torch]'" in bad(["data", "movies"], capsys)
