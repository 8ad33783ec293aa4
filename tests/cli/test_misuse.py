"""What must not happen whatever one types: foreign files deleted, other labels scored, noise on stdout."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import App, CoercionError, Parameter

from offramp.cli.main import run
from offramp.cli.victims import SearchOptions
from offramp.training.strategies import Joint


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "reviews.jsonl"
    rows = [row for split in tiny_data.values() for row in split]
    lines = [
        json.dumps({"text": row["text"] + end, "label": ["bad", "good"][row["label"]]})
        for row in rows
        for end in ("", " film")
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def train_arguments(table: Path, encoder: Path, output: Path) -> list[str]:
    arguments = ["train", str(table), "--backbone", str(encoder), "--output", str(output)]
    return [*arguments, "--exits", "1", "2", "--strategy", "joint", "--max-steps", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, table: Path, tiny_encoder: Path) -> Path:
    output = tmp_path_factory.mktemp("runs") / "joint"
    assert run(train_arguments(table, tiny_encoder, output)) == 0
    assert run(["tune", str(output), str(table)]) == 0
    return output


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that a command says which has to fail with exit code 2."""
    capsys.readouterr()
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("offramp: ")
    assert said.err.count("\n") == 1
    return said.err


def test_training_prints_one_json_object_and_nothing_else_on_stdout(
    table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*train_arguments(table, tiny_encoder, tmp_path / "run"), "--json"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("{")
    assert [row["exit_layer"] for row in json.loads(said.out)["exits"]] == [1, 2]
    assert "accuracy on validation" in said.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(
    number: int,
    table: Path,
    tiny_encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, original = train_arguments(table, tiny_encoder, tmp_path / "run"), Joint.step

    def interrupted(self: Any, *args: Any) -> Any:
        os.kill(os.getpid(), number)
        return original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Joint, "step", interrupted)
        assert run(arguments) == 128 + number
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("offramp: stopped; the checkpoint is in ")
    assert said.endswith("run the same again to resume")
    assert run(arguments) == 0


def test_numbers_among_the_options_of_a_strategy(
    table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joint = train_arguments(table, tiny_encoder, tmp_path / "run")
    arguments = ["self_distill" if word == "joint" else word for word in joint]
    assert "must be a number, got 'hot'" in refusal(
        [*arguments, "--strategy-options.temperature", "hot"], capsys
    )
    assert (
        run([*arguments, "--strategy-options.temperature", "2", "--strategy-options.weights", "linear"]) == 0
    )
    stored = json.loads((tmp_path / "run" / "settings.json").read_text())["strategy_options"]
    assert stored == {"temperature": 2, "weights": "linear"}


def test_restart_throws_away_an_attack_and_no_other_file(
    trained: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = ["attack", str(trained), str(table), "--examples", "2", "--rounds", "1", "--similarity", "none"]
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    for more in ([], ["--restart"]):
        assert "that no attack wrote" in refusal([*attack, "--output", str(foreign), *more], capsys)
    assert [p.name for p in foreign.iterdir()] == ["thesis.txt"]

    own = tmp_path / "attack"
    assert run([*attack, "--output", str(own)]) == 0
    again = [*attack, "--output", str(own), "--restart", "--seed", "1"]
    (own / "notes.txt").write_text("mine")
    assert "notes.txt" in refusal(again, capsys)
    assert json.loads((own / "manifest.json").read_text())["seed"] == 0
    (own / "notes.txt").unlink()
    assert run(again) == 0
    assert json.loads((own / "manifest.json").read_text())["seed"] == 1


@pytest.mark.parametrize("command", ["tune", "evaluate", "attack", "bench", "conflict"])
def test_data_with_other_labels_are_refused(
    command: str, trained: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two classes again, in another order: their numbers would fit, and every score would be wrong.
    other = tmp_path / "other.jsonl"
    text = table.read_text(encoding="utf-8")
    other.write_text(text.replace('"good"', '"awful"').replace('"bad"', '"fine"'), encoding="utf-8")
    source = ["--data", str(other)] if command in ("evaluate", "conflict") else [str(other)]
    said = refusal([command, str(trained), *source], capsys)
    assert "'bad', 'good'" in said
    assert "'awful', 'fine'" in said


def test_seeds_and_criteria_are_checked_before_anything_is_said(
    trained: Path, table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = train_arguments(table, tiny_encoder, tmp_path / "run")
    for seed in ("-1", "99999999999999999999"):
        assert "--seed" in refusal([*train, "--seed", seed], capsys)
    evaluate = ["evaluate", str(trained), "--data", str(table)]
    assert "--seed" in refusal([*evaluate, "--seed", "-1"], capsys)
    said = refusal([*evaluate, "--criterion", "confidnce", "--max-accuracy-drop", "0.1"], capsys)
    assert "Did you mean 'confidence'" in said
    assert not (tmp_path / "run").exists()


def test_a_judge_asked_for_by_name_must_be_there(
    trained: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = ["attack", str(trained), str(table), "--examples", "2", "--output", str(tmp_path / "a")]
    assert "no such folder" in refusal([*attack, "--similarity", "./nowhere"], capsys)


def test_damaged_model_folders_are_one_clear_line(
    trained: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    config = json.loads((copy / "model" / "config.json").read_text())
    (copy / "model" / "config.json").write_text(json.dumps({**config, "costs": {"exits": [1]}}))
    assert "costs" in refusal(["tune", str(copy), str(table)], capsys)
    (copy / "model" / "tokenizer.json").write_text("{")
    assert "tokenizer" in refusal(["tune", str(copy), str(table)], capsys)


def test_a_wide_row_stands_upright_and_in_full(
    trained: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["tune", str(trained), str(table), "--max-accuracy-drop", "1"]) == 0
    assert "max accuracy drop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"), [("3", 3), ("1", 1), ("1.0", 1.0), ("0.25", 0.25), ("2e-1", 0.2)]
)
def test_words_are_a_number_or_a_share_as_they_are_written(given: str, words: float) -> None:
    found: list[Any] = []
    usual = SearchOptions()
    app = App(default_parameter=Parameter(consume_multiple=True, negative=()))

    @app.default
    def command(*, search: Annotated[SearchOptions, Parameter(name="*")] = usual) -> None:
        found.append(search.max_changed_words)

    app(["--max-changed-words", given], exit_on_error=False, result_action="return_value")
    assert found == [words]
    assert type(found[0]) is type(words)
    with pytest.raises(CoercionError, match="--max-changed-words"):
        app(
            ["--max-changed-words", "few"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )


def test_a_copy_with_fewer_exits_needs_a_folder_of_its_own_and_voids_a_guarantee(
    trained: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = ["tune", str(trained), str(table), "--kept"]
    before = (trained / "model" / "model.safetensors").read_bytes()
    for folder in (trained, trained / "model"):
        assert "holds something already" in refusal([*tune, str(folder)], capsys)
    assert (trained / "model" / "model.safetensors").read_bytes() == before
    said = refusal([*tune, str(tmp_path / "kept"), "--guarantee", "disagreement"], capsys)
    assert "voids a guarantee (--guarantee)" in said
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "command",
    ["evaluate", "conflict", "tune", "attack", "bench", "bench attack", "bench coverage", "bench stream"],
)
def test_a_model_that_is_not_there_is_missed_by_name(
    command: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results go into the model's folder by default: trying to write there must not make the folder first."""
    source = ["--data", str(table)] if command in ("evaluate", "conflict") else [str(table)]
    said = refusal([*command.split(), str(tmp_path / "nowhere"), *source], capsys)
    assert f"no model at {tmp_path / 'nowhere'}: no such folder" in said
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("given", ["1.5", "8.0", "1e1", "eight"])
def test_a_whole_number_is_not_rounded(
    given: str, table: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = train_arguments(table, tiny_encoder, tmp_path / "run")
    said = refusal([*arguments, "--batch-size", given], capsys)
    assert f'"{given}" into int' in said
    config = tmp_path / "run.yaml"
    config.write_text(f"batch_size: {given}\n", encoding="utf-8")
    assert f'"{given}" into int' in refusal([*arguments, "--config", str(config)], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["attack", "bench"])
def test_nothing_is_reported_on_the_calibration_split(
    command: str, trained: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal([command, str(trained), str(table), "--split", "calibration"], capsys)
    assert "fitted on the calibration split" in said


@pytest.mark.parametrize("command", ["tune", "evaluate", "attack", "bench"])
def test_rows_that_were_trained_on_are_not_measured(
    command: str, trained: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--data", str(table)] if command == "evaluate" else [str(table)]
    said = refusal([command, str(trained), *source, "--data-seed", "1"], capsys)
    assert "joint and the calibration split of reviews: " in said
    assert "rows were trained on: read the data as for training, with the same --data-seed" in said


def test_training_rows_are_measured_where_they_are_asked_for(trained: Path, table: Path) -> None:
    assert run(["evaluate", str(trained), "--data", str(table), "--split", "train", "--timed", "0"]) == 0


@pytest.mark.parametrize("full_from_the_start", [True, False])
def test_a_full_disk_is_reported_before_the_work_or_after_the_result(
    full_from_the_start: bool,
    trained: Path,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    if not full_from_the_start:
        monkeypatch.setattr("offramp.cli.paths.check_writable", lambda folder: None)
    conflict = ["conflict", str(trained), "--data", str(table), "--batches", "1", "--output", str(tmp_path)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert run(conflict) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    *shown, said = capsys.readouterr().err.splitlines()
    file = "" if full_from_the_start else "/conflict.parquet"
    assert said.startswith(f"offramp: cannot write {tmp_path}{file} (File too large): free some space")
    assert any("mean cosine" in line for line in shown) != full_from_the_start
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tune", "m", "d", "--max-accuracy-drop", "5"],
            "max_accuracy_drop is a share between 0 and 1, got 5",
        ),
        (
            ["tune", "m", "d", "--max-accuracy-drop", "5%"],
            'unable to convert "5%" into float: write 0.05 for 5 %',
        ),
        (
            ["tune", "m", "d", "--max-cost", "50"],
            "max_cost is a share above 0 and at most 1, got 50: write 0.5 for",
        ),
        (
            ["tune", "m", "d", "--guarantee", "conformal", "--alpha", "2"],
            "alpha is a share above 0 and below 1",
        ),
        (["evaluate", "m", "--data", "d", "--max-accuracy-drop", "5"], "got 5: write 0.05 for 5 points"),
        (
            ["bench", "m", "d", "--max-accuracy-drop", "-1"],
            "max_accuracy_drop is a share between 0 and 1, got -1",
        ),
        (["bench", "attack", "m", "d", "--max-accuracy-drop", "3"], "got 3: write 0.03 for 3 points"),
        (
            ["bench", "coverage", "m", "d", "--alphas", "0.02", "5"],
            "alpha is a share above 0 and below 1, got 5",
        ),
        (["bench", "coverage", "m", "d", "--delta", "10"], "delta is a share above 0 and below 1, got 10"),
        (["attack", "m", "d", "--max-changed-words", "10%"], "write 0.1 for 10 %"),
        (["attack", "m", "d", "--max-changed-words", "5.5"], "got 5.5: write 0.055 for 5.5 %"),
        (["attack", "m", "d", "--min-similarity", "80"], "got 80: write 0.8 for 80 %"),
        (
            ["train", "d", "--output", "o", "--warmup", "10"],
            "warmup is a share between 0 and 1, got 10: write 0.1",
        ),
        (["bench", "train", "d", "--output", "o", "--warmup", "10"], "got 10: write 0.1 for 10 %"),
    ],
)
def test_a_percentage_is_refused_before_anything_is_read(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(arguments, capsys)


def test_a_percentage_in_a_file_is_refused_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = tmp_path / "tune.yaml"
    for written in ("5", "5%"):
        options.write_text(f"max-accuracy-drop: {written}\n")
        assert "write 0.05 for 5 " in refusal(["tune", "m", "d", "--config", str(options)], capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "coverge", "m", "d"], "unknown subcommand of bench 'coverge'. Did you mean 'coverage'?"),
        (["bench", "strem", "m"], "Did you mean 'stream'?"),
        (["bench", "atack"], "Did you mean 'attack'?"),
        (["bench", "m", "d", "more"], "expected no further words, got 'more': offramp bench --help shows"),
        (["tune", "m", "d", "[e]"], "expected no further words, got '[e]'"),
        (["bnech", "m", "d"], 'Did you mean "bench"?'),
    ],
)
def test_misspelt_commands_and_words_too_many(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(arguments, capsys)
