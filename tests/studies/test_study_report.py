"""The report of a sweep: every number out of the records, beside the paper's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from offramp._core import progress
from offramp.reports import ALL_FIGURES
from offramp.studies.grid import check_trials
from offramp.studies.training.page import training_contents
from offramp.studies.training.report import study_report
from offramp.studies.training.results import load_results
from offramp.studies.training.study import study
from offramp.studies.training.tables import in_points, name_of, study_tables
from offramp.training.strategies import STRATEGIES, Joint
from tests.studies.made_up_trials import SKILLS, SWEEP, record_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweet-toy")
    record_all(path, {**SWEEP, "train_sizes": [200, 500], "seeds": [0]})
    return path


def test_all_files_are_written_and_are_the_same_again(folder: Path, tmp_path: Path) -> None:
    files = study_report(folder, tmp_path / "a", figures=ALL_FIGURES, resamples=30)
    assert {name for name in files if name.endswith(".svg")} == {
        f"figures/{name}-minilm-l6.svg"
        for name in ("curves", "exits", "differences", "sizes", *(f"reliability-{m}" for m in SKILLS))
    }
    assert {name for name in files if name.startswith("tables/")} == {
        f"tables/{name}.md"
        for name in (
            *("differences", "individual", "exits", "curves", "curve-differences", "winners", "sizes"),
            "calibration",
            "ranking",
        )
    }
    again = study_report(folder, tmp_path / "b", figures=ALL_FIGURES, resamples=30)
    assert all(path.read_bytes() == again[name].read_bytes() for name, path in files.items())
    report = files["report.md"].read_text()
    assert report.startswith(f"# {folder.name}\n\n12 models, 4 comparisons.")
    assert "![curves minilm l6](figures/curves-minilm-l6.svg)" in report
    page = files["index.html"].read_text(encoding="utf-8")
    assert "<h1>How do Multi-Model, SWEET compare with Early-Exit on 2 tasks?</h1>" in page
    assert page.count("data-explorer>") == 4  # two tasks at two sizes
    for title in ("Methods compared", "Speed and accuracy", "Every exit", "Training", "Provenance"):
        assert f">{title}</h2>" in page
    assert "More tables" not in page
    assert page.count('<img src="data:image/svg+xml;base64,') == 1 + len(SKILLS)  # sizes and reliability
    assert all(f"n{size}-lrNone-seed0" in page for size in (200, 500)) or "All 12 records" in page


def test_the_answer_is_that_of_the_table(folder: Path) -> None:
    """Both methods, with the average that the table of differences has in its last rows."""
    methods = study(load_results(folder), resamples=30)
    contents = training_contents(methods, left_out=(), records=())
    averages = methods.differences.query("measure == 'exits'")
    averages = averages[averages["where"].str.startswith("mean of")]
    for method, sentence in zip(("multi_model", "sweet"), contents.summary.answer, strict=True):
        own = averages[averages["method"] == method].iloc[0]
        assert sentence.startswith(f"{name_of(method)} scores ")
        assert f"{100 * abs(own['difference']):.1f} points [" in sentence
        assert "on average over the exits and 2 tasks (+" in sentence
    assert contents.summary.scope.endswith("200 or 500 training examples · 1 seed · 12 models")


def test_every_table_has_a_part_of_the_page(folder: Path) -> None:
    methods = study(load_results(folder), resamples=30)
    chapters = training_contents(methods, left_out=(), records=()).chapters
    named = {name for chapter in chapters for name in chapter.tables}
    assert named >= {*study_tables(methods), "calibration", "ranking", "protocols"}


def test_a_report_shows_how_long_it_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0)
    study_report(folder, tmp_path, figures=("curves-*",), resamples=5, progress=True)
    lines = capsys.readouterr().err.splitlines()
    for title, steps in (("compare methods", 4), ("rank the exits", 12), ("draw figures", 2)):
        assert [line for line in lines if line.startswith(f"{title}: {steps} of {steps}, ")], title


def test_differences_stand_beside_the_papers(folder: Path) -> None:
    methods = study(load_results(folder), resamples=30)
    table = study_tables(methods)["differences"]
    assert table.header[-2:] == ("Multi-Model − Early-Exit", "SWEET − Early-Exit")
    assert table.rows[-1][-2:] == ("+2.3", "+1.1")
    row = next(methods.differences.query("measure == 'exits' and method == 'sweet'").itertuples())
    line = next(r for r in table.rows if r[1:3] == (row.where, f"{row.train_size:,}"))
    assert line[-1] == in_points(row.difference, row.low, row.high)
    assert [r[1] for r in table.rows].count("mean of 2 tasks") == 2


def test_sizes_stand_side_by_side(folder: Path) -> None:
    table = study_tables(study(load_results(folder), resamples=30))["sizes"]
    assert table.header == ("encoder", "task", "method", "200", "500")
    assert {row[1] for row in table.rows} == {"sst2", "rte", "mean of 2 tasks"}


def test_learning_rates_have_a_table(tmp_path: Path) -> None:
    record_all(tmp_path, {**SWEEP, "tasks": ["trec"], "seeds": [0], "learning_rate": [0.01, 0.9]})
    table = study_tables(study(load_results(tmp_path), resamples=30))["learning-rates"]
    assert [row[2] for row in table.rows] == ["", "best"] * 3
    layers = table.header[6:]
    assert len(layers) > 1
    assert all(name.startswith("layer ") for name in layers)
    for row in table.rows:
        assert float(row[5]) == pytest.approx(np.mean([float(cell) for cell in row[6:]]), abs=1e-3)


def test_names_in_print() -> None:
    assert name_of("joint") == "Early-Exit"
    assert name_of("multi_model") == "Multi-Model"
    assert name_of("two_stage") == "two stage"
    assert in_points(0.0114, -0.002, 0.0301) == "+1.1 [−0.2, +3.0]"


def test_a_new_strategy_needs_a_class_and_an_entry_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(Joint):
        label, is_baseline, trains_alone = "My Way", False, True

    monkeypatch.setitem(STRATEGIES, "mine", Mine)
    content = {**SWEEP, "tasks": ["rte"], "seeds": [0], "strategies": ["mine", "joint"], "conflict": [0, 1]}
    sweep = record_all(tmp_path, content)
    check_trials(sweep.trials)
    assert [trial.conflict for trial in sweep.trials] == [(), (0.0, 1.0)]
    methods = study(load_results(tmp_path), resamples=30)
    assert methods.methods == ["joint", "mine"]
    assert study_tables(methods)["individual"].header[-2:] == ("Early-Exit", "My Way")


def test_no_common_seed_is_a_report_without_tables(tmp_path: Path) -> None:
    sweep = record_all(
        tmp_path, {**SWEEP, "tasks": ["rte"], "strategies": ["joint", "sweet"], "seeds": [0, 1]}
    )
    for trial in sweep.trials:
        if (trial.method.name == "joint") == (trial.seed == 0):
            shutil.rmtree(tmp_path / trial.folder)
    files = study_report(tmp_path, tmp_path / "report", figures=ALL_FIGURES, resamples=30)
    assert set(files) == {"report.md", "index.html"}
    assert "no seed that all methods have" in files["report.md"].read_text()
    page = files["index.html"].read_text(encoding="utf-8")
    assert "no seed that all methods have" in page
    assert "No two methods share a seed and a task" in page
