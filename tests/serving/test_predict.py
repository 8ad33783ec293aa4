"""Answers for the rows of a file: every format, the same answers as the engine, and runs that are stopped."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from offramp._core.errors import ConfigError, DataError
from offramp.cli.main import run
from offramp.data.files import read_file
from offramp.inference.engine import Engine
from offramp.serving import predict as module
from offramp.serving.predict import PredictOptions, predict_file

TEXTS = [
    "a good film",
    'so "bad", it was\nfunny',
    "=1+1",
    "  the plot ",
    "una película",
    "slow; dull\ttabs",
    "bad",
]
ADDED = ("label", "probability", "exit_layer", "cost")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [{"id": i, "sentence": text, "tags": [i], "note": None} for i, text in enumerate(TEXTS)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def written(path: Path) -> list[dict[str, Any]]:
    table = read_file(path)
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]


def converted(source: Path, suffix: str) -> Path:
    """The rows in another format, without the columns that it lacks."""
    rows = [{name: row[name] for name in ("id", "sentence")} for row in written(source)]
    path = source.with_suffix(suffix)
    if suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "sentence"], delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".arrow":
        with pa.ipc.new_file(str(path), pa.Table.from_pylist(rows).schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows))
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


FORMATS = (".csv", ".tsv", ".json", ".parquet", ".arrow", ".feather")


@pytest.mark.parametrize("suffix", [*FORMATS, ".jsonl"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".json", ".parquet", ".arrow"])
def test_every_format_keeps_its_columns_and_gets_the_engines_answers(
    suffix: str, ending: str, source: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 3)
    path = source if suffix == ".jsonl" else converted(source, suffix)
    before = written(path)
    output = source.with_name("answers" + ending)
    assert predict_file(engine, path, output) == len(TEXTS)
    rows = written(output)
    for row, answer, original in zip(rows, engine.predict(TEXTS), before, strict=True):
        assert row["sentence"] == original["sentence"]
        assert str(row["id"]) == str(original["id"])
        assert list(row) == [*original, *ADDED]
        assert row["label"] == answer.label
        assert float(row["probability"]) == pytest.approx(answer.probability, rel=1e-6)
        assert int(row["exit_layer"]) == answer.exit_layer
        assert float(row["cost"]) == answer.cost
    assert not output.with_name(output.name + ".parts").exists()


def test_plain_lines_and_all_probabilities(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "lines.txt").write_text("a good film\r\n\nbad")
    stream = io.BytesIO()
    assert predict_file(engine, tmp_path / "lines.txt", stream, PredictOptions(probabilities=True)) == 3
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["text"] for row in rows] == ["a good film", "", "bad"]
    for row in rows:
        shares = {label: row[f"probability_{label}"] for label in engine.labels}
        assert sum(shares.values()) == pytest.approx(1)
        assert max(shares, key=shares.__getitem__) == row["label"]
        assert max(shares.values()) == row["probability"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_killed_at_every_part_or_at_the_end_the_output_is_the_same(
    ending: str, source: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = converted(source, ".csv")
    monkeypatch.setattr(module, "PART_ROWS", 1)
    whole, output = source.with_name("whole" + ending), source.with_name("answers" + ending)
    predict_file(engine, path, whole)
    kinds = [type(module.TextWriter("csv", [])), module.ArrowWriter]
    for point in [*range(len(TEXTS)), "join", "join"]:
        with monkeypatch.context() as patch:

            def stop(rows: int, share: float | None, point: Any = point) -> None:
                if rows - 1 == point:
                    raise Killed

            for kind in kinds if point == "join" else ():
                patch.setattr(kind, "join", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                predict_file(engine, path, output, on_progress=stop)
        assert not output.exists()
    runs = []
    run_batch = engine.compacting.run
    monkeypatch.setattr(engine.compacting, "run", lambda *a: runs.append(a) or run_batch(*a))
    assert predict_file(engine, path, output) == len(TEXTS)
    assert runs == []  # nothing is answered twice
    assert output.read_bytes() == whole.read_bytes()


def test_a_half_written_part_is_written_again(
    source: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 2)
    output = source.with_name("answers.jsonl")
    predict_file(engine, source, output)
    expected = output.read_bytes()
    output.unlink()

    def half(self: Any, path: Path, rows: Any) -> None:
        path.write_bytes(self.rows(rows)[:20])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module.TextWriter, "write_part", half)
        with pytest.raises(Killed):
            predict_file(engine, source, output)
    predict_file(engine, source, output)
    assert output.read_bytes() == expected


def test_another_run_is_refused(source: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    output = source.with_name("answers.jsonl")

    def stop(rows: int, share: float | None) -> None:
        raise Killed

    with pytest.raises(Killed):
        predict_file(engine, source, output, on_progress=stop)
    with pytest.raises(ConfigError, match=r"another prediction \(prefix '' there, 'x' here\)"):
        predict_file(engine, source, output, PredictOptions(prefix="x"))
    source.write_text(source.read_text() + '{"sentence": "more"}\n')
    with pytest.raises(ConfigError, match="another prediction .size"):
        predict_file(engine, source, output)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "text,label\nx,1\n", {}, "has a column 'label' already: give a prefix"),
        (
            "a.jsonl",
            '{"text": "x"}\n{"text": null}\n',
            {},
            "row 2: expected a text in the column 'text', got None",
        ),
        ("a.jsonl", '{"text": "x"}\n[1]\n', {}, "line 2: expected an object with columns"),
        ("a.jsonl", '{"a": "x"}\n', {}, "no column has a usual name for the text"),
        ("a.csv", "text,b\nx,1\n", {"text": "txt"}, "no column 'txt'. Did you mean 'text'"),
        ("a.csv", "text,b\nx,1\n", {"text_pair": "b"}, "trained on single texts, but the input has pairs"),
        ("a.csv", "text,b\nx,1\ny\n", {}, "line 3: expected 2 values"),
        ("a.csv", "", {}, "is empty"),
        ("a.csv", b"text,b\n\xff,1\n", {}, "expected UTF-8, got the byte 0xff"),
        ("a.parquet", "no", {}, "give a parquet file"),
        ("a.xml", "no", {}, "unknown file type '.xml'"),
        ("a.csv", "text,b\nx,1\n", {"format": "cvs"}, "unknown format 'cvs'. Did you mean 'csv'"),
    ],
)
def test_what_cannot_be_read(
    name: str, content: Any, options: Any, message: str, tmp_path: Path, tiny_model: Any
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    engine = Engine(tiny_model, batch_size=4)
    engine.pair = False
    with pytest.raises((DataError, ConfigError)) as error:
        predict_file(engine, tmp_path / name, tmp_path / "out.jsonl", PredictOptions(**options))
    assert message in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_what_cannot_be_written(source: Path, engine: Engine) -> None:
    with pytest.raises(ConfigError, match="is the input: write to another file"):
        predict_file(engine, source, source)
    with pytest.raises(ConfigError, match="need columns"):
        predict_file(engine, source, source.with_suffix(".txt"))
    source.write_text('{"text": "x", "a": 1}\n{"text": "y", "b": 1}\n')
    with pytest.raises(DataError, match="in all rows, got 'b' later: write .jsonl"):
        predict_file(engine, source, source.with_name("out.csv"))
    source.write_text('{"text": "x", "a": 1}\n{"text": "y", "a": "z"}\n')
    with pytest.raises(DataError, match=r"do not fit in parquet, .*: write .jsonl"):
        predict_file(engine, source, source.with_name("out.parquet"))


def test_columns_that_come_later_are_kept(
    source: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 1)
    source.write_text('{"text": "x", "a": 1}\n{"text": "y", "a": 1.5, "b": "z"}\n')
    predict_file(engine, source, source.with_name("out.parquet"))
    rows = parquet.read_table(source.with_name("out.parquet")).to_pylist()
    assert [(row["text"], row["a"], row["b"]) for row in rows] == [("x", 1.0, None), ("y", 1.5, "z")]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=5), ending=st.sampled_from([".jsonl", ".csv"]))
def test_any_text_survives(texts: list[str], ending: str, tmp_path: Path, engine: Engine) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / f"out{ending}"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    predict_file(engine, path, output)
    if ending == ".jsonl":
        rows = [json.loads(line) for line in output.read_bytes().split(b"\n")[:-1]]
    else:
        rows = [*csv.DictReader(io.StringIO(output.read_bytes().decode(), newline=""))]
    assert [row["text"] for row in rows] == texts


def test_a_long_delimited_file_shows_its_dialect_at_its_beginning(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offramp.serving.row_files.HEAD", 60)
    texts = [f'{i}: "so"; bad,\nit was' for i in range(30)]
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["text", "n"], *([text, 1] for text in texts)])
    predict_file(engine, tmp_path / "in.csv", tmp_path / "out.csv")
    content = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert content.startswith("text;n;label;")
    assert [row["text"] for row in csv.DictReader(io.StringIO(content), delimiter=";")] == texts


def test_the_command(
    saved: Path, source: Path, capfdbinary: pytest.CaptureFixture[bytes], engine: Engine
) -> None:
    assert run(["predict", str(saved), str(source)]) == 0
    said = capfdbinary.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["label"] for row in rows] == [answer.label for answer in engine.predict(TEXTS)]
    assert b"7 rows in" in said.err
    assert run(["predict", str(saved), str(source), "--output", str(source.parent)]) == 2
    assert b"a folder of that name exists" in capfdbinary.readouterr().err


def test_standard_input_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    output = tmp_path / "out.jsonl"
    monkeypatch.setattr(module, "PART_ROWS", 1)

    def stop(rows: int, share: float | None) -> None:
        raise Killed

    for texts in (["other"], TEXTS[2:]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
        if texts == ["other"]:
            with pytest.raises(Killed):
                predict_file(engine, Path("-"), output, on_progress=stop)
        else:
            predict_file(engine, Path("-"), output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["text"] for row in rows] == TEXTS[2:]
    (tmp_path / "own.jsonl.parts").mkdir()
    (tmp_path / "own.jsonl.parts" / "mine").touch()
    with pytest.raises(ConfigError, match="holds files that no prediction wrote"):
        predict_file(engine, Path("-"), tmp_path / "own.jsonl")


def test_a_model_that_was_written_again_is_another_one(tmp_path: Path) -> None:
    weights = tmp_path / "model.onnx"
    weights.write_bytes(b"1")
    before = module.fingerprint(tmp_path)
    assert module.fingerprint(tmp_path) == before
    weights.write_bytes(b"22")
    assert module.fingerprint(tmp_path) != before


@pytest.mark.slow
def test_killed_by_the_system_the_output_is_the_same(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,n\n" + "".join(f"the film was good {i},{i}\n" for i in range(30_000)))
    command = [
        sys.executable,
        "-m",
        "offramp.cli.main",
        "predict",
        str(exported),
        str(path),
        "--threads",
        "1",
    ]
    subprocess.run([*command, "--output", str(tmp_path / "whole.csv")], check=True)
    for _ in range(10):
        process = subprocess.Popen([*command, "--output", str(tmp_path / "out.csv")])
        parts = tmp_path / "out.csv.parts"
        before = len([*parts.glob(".0*")]) if parts.exists() else 0
        while process.poll() is None and (not parts.exists() or len([*parts.glob(".0*")]) <= before):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--output", str(tmp_path / "out.csv")], check=True)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
