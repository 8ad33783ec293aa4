"""Names from data, files and models, through every command: nothing in them is markup, a formula or a path."""

from __future__ import annotations

import json
import shutil
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from offramp._core.text import one_line
from offramp.cli.main import run
from offramp.inference.engine import Engine

LABELS = ["[/quote]", "[spam]", "$x$ <b>&|`", "=1+1", "_under", "\x1b[31mred", ":smile:", "نص"]
MODEL, COPY = "_[bold]m $x$ <b>&|`", "=:smile: *_x"
DATA = "[red]set_ $x$"


def write_split(path: Path, repeats: int) -> None:
    """A JSON Lines file with texts of every label, which hold the names, too."""
    rows = [
        {"text": f"{label} a good film number {i} in {path.stem} [/b]", "label": label}
        for i in range(repeats)
        for label in LABELS
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A trained and tuned model, a copy of it under another name, and their data."""
    root = tmp_path_factory.mktemp("literal")
    (root / DATA).mkdir()
    for split, repeats in (("train", 4), ("calibration", 3), ("validation", 2)):
        write_split(root / DATA / f"{split}.jsonl", repeats)
    train = ["train", str(root / DATA), "--backbone", str(tiny_encoder), "--output", str(root / MODEL)]
    assert run([*train, "--exits", "1", "4", "--max-steps", "2", "--strategy", "joint"]) == 0
    assert run(["tune", str(root / MODEL), str(root / DATA), "--max-cost", "0.9"]) == 0
    shutil.copytree(root / MODEL, root / COPY)
    return root


def result(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The one JSON object that a command prints on stdout, and what it says to people."""
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.err
    return json.loads(said.out), said.err


def test_every_command_shows_names_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models, data = [str(folder / MODEL), str(folder / COPY)], str(folder / DATA)
    shown, said = result(["data", data], capsys)
    assert shown["labels"] == sorted(LABELS)
    assert f"{DATA} (classification" in said
    for label in sorted(LABELS)[:6]:
        assert f"{one_line(label)} 4" in said

    measured, said = result(["evaluate", *models, "--data", data, "--timed", "0"], capsys)
    assert list(measured["models"]) == [MODEL, COPY]
    for name in (MODEL, COPY):
        assert f"{name}: accuracy by exit" in said
        assert f"│ {name} " in said

    attack = ["attack", models[0], data, "--recipe", "random-word", "--rounds", "1", "--examples", "2"]
    assert f"{MODEL}, random-word" in result([*attack, "--similarity", "none"], capsys)[1]

    _, said = result(["conflict", models[0], "--data", data, "--batches", "1"], capsys)
    assert f"conflict: {folder / MODEL}" in said.replace("\n", "")

    files, _ = result(["report", str(folder), "--output", str(folder / "report")], capsys)
    check_report({name: Path(path) for name, path in files.items()}, folder)
    engine = Engine(folder / MODEL / "model", policy=folder / MODEL / "policy-confidence.json")
    assert engine.predict("a good film").label in LABELS


def check_report(files: dict[str, Path], folder: Path) -> None:
    """The names as Markdown and as HTML, and no file outside the report."""
    assert all(path.resolve().is_relative_to((folder / "report").resolve()) for path in files.values())
    text = files["report.md"].read_text(encoding="utf-8")
    assert r"| \_[bold]m \$x\$ &lt;b>&amp;\|\` |" in text
    assert r"| =:smile: \*\_x |" in text
    page = files["index.html"].read_text(encoding="utf-8")
    assert f">{MODEL}</td>" in unescape(page)
    assert "<b>&" not in page
    assert f"<!-- {escape(MODEL, quote=False)} -->" in files["figures/curves-accuracy.svg"].read_text("utf-8")


def test_an_error_is_one_line_that_steers_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(tmp_path / "\x1b[2J[bold]no\nsuch")]) == 2
    said = capsys.readouterr().err
    assert "⟨U+001B⟩[2J[bold]no such" in said
    assert said.count("\n") == 1
