"""The report of an attack study: every number out of the records."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.cli.main import run
from offramp.reports import ALL_FIGURES
from offramp.reports.text_table import interval
from offramp.studies.attacks.page import attack_contents, slows
from offramp.studies.attacks.report import attack_report
from offramp.studies.attacks.results import load_attacks, load_transfers
from offramp.studies.attacks.study import attack_study, average
from offramp.studies.attacks.tables import attack_tables
from offramp.studies.attacks.transfer_tables import summary_table, transfer_matrices
from tests.studies.made_up_attacks import ATTACKS, made_up_trials, record_study, record_transfer

FEW = 40  # resamples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("same-toy")
    record_transfer(path, record_study(path))
    return path


@pytest.fixture(scope="module")
def study(folder: Path) -> Any:
    return attack_study(load_attacks(folder), load_transfers(folder), resamples=FEW)


def test_all_files_are_written_and_are_the_same_again(folder: Path, tmp_path: Path) -> None:
    files = attack_report(folder, tmp_path / "a", figures=ALL_FIGURES, resamples=FEW)
    figures = (
        "drop-same-word",
        "cost-same-word",
        "attacks",
        "ablations",
        "transfer-same-word-sst2",
        "transfer-same-word-rte",
    )
    assert {name for name in files if name.endswith(".svg")} == {
        f"figures/{name}-minilm-l6.svg" for name in figures
    }
    tables = {
        "claims",
        "recipes",
        "recipe-differences",
        "strategies",
        "criteria",
        "criterion-differences",
        "ablations",
        "robustness",
        "transfer",
        "transfer-same-word-sst2-minilm-l6",
        "transfer-same-word-rte-minilm-l6",
        "doubts",
    }
    assert {name for name in files if name.endswith(".md")} == {f"tables/{name}.md" for name in tables} | {
        "report.md"
    }
    assert {name for name in files if name.endswith(".csv")} == {
        f"tables/{name}.csv" for name in ("numbers", "strategies", "criteria", "recipes", "transfer")
    }
    again = attack_report(folder, tmp_path / "b", figures=ALL_FIGURES, resamples=FEW)
    assert all(path.read_bytes() == again[name].read_bytes() for name, path in files.items())
    assert (
        files["report.md"].read_text().startswith(f"# {folder.name}\n\n64 attacks on 8 models, 32 settings.")
    )
    with files["tables/numbers.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32 * 16
    assert float(rows[0]["low"]) <= float(rows[0]["estimate"]) <= float(rows[0]["high"])


def test_the_page_answers_with_the_strongest_attack(study: Any) -> None:
    contents = attack_contents(study, ())
    first, second = contents.summary.answer
    slowing = [name for name in study.values("attack") if slows(study, name)]
    lost = {name: study.average_of(name).value("efficiency_drop") for name in slowing}
    strongest = max(lost, key=lambda name: lost[name])
    assert first.startswith(f"{strongest} takes away {100 * lost[strongest]:.0f} % [")
    assert " loses least, " in second
    named = {name for chapter in contents.chapters for name in chapter.tables}
    assert {name for name in attack_tables(study) if not name.startswith("transfer-")} <= named
    charts = [chart for chapter in contents.chapters for chart in chapter.charts if chart]
    assert {name for _, name in charts[0].rows} == set(study.values("attack"))


def test_claims_stand_beside_what_was_measured(study: Any) -> None:
    table = attack_tables(study)["claims"]
    claimed = {row[1]: row[8] for row in table.rows}
    assert claimed == {"same-word": "0.8", "words-1": "0.8", "textfooler-last": "0.0", "random-word": "–"}
    row = next(row for row in table.rows if row[1:3] == ("same-word", "all"))
    estimates = average(study.select(attack="same-word")["estimates"])
    assert row[7] == interval(*estimates.interval("efficiency_drop"))


def test_attacks_are_compared_with_the_random_baseline(study: Any) -> None:
    table = attack_tables(study)["recipe-differences"]
    assert table.note.startswith("Against random-word")
    assert "random-word" not in {row[4] for row in table.rows}
    strategies = attack_tables(study)["strategies"]
    assert {row[4] for row in strategies.rows} == {"SWEET"}
    assert all("all" in row[2:4] for row in strategies.rows)


def test_the_rule_that_loses_least_is_marked(study: Any) -> None:
    rows = attack_tables(study)["criteria"].rows
    marked = [row for row in rows if row[3] == "least"]
    assert len(marked) == len({row[1] for row in rows}) == 4


def test_ablations_name_what_was_changed(study: Any) -> None:
    (row,) = attack_tables(study)["ablations"].rows
    assert row[1:4] == ("same-word", "words-1", "words 1")
    assert row[7].startswith("−0.")


def test_matrices_average_over_pairs_of_models(study: Any) -> None:
    sst2 = next(matrix for matrix in transfer_matrices(study.transfers) if matrix.task == "sst2")
    assert sst2.column_names() == sst2.row_names()
    assert sst2.column_names()[0] == "Early-Exit, confidence"
    assert not sst2.own.to_numpy().any()  # two seeds: never the very model
    assert sst2.values.iloc[0, 0] == pytest.approx(0.4)  # another seed of the same method, the same rule
    assert sst2.values.iloc[0, 3] == pytest.approx(0.0)
    (row,) = [row for row in summary_table(study.transfers).rows if row[2] == "sst2"]
    assert row[3:] == ("0.600 (8)", "0.400 (8)", "0.300 (16)", "0.100 (32)", "– (0)")


def test_one_seed_shows_the_model_itself_in_parentheses(tmp_path: Path) -> None:
    trials = made_up_trials({"sst2": (0,)}, {"same-word": ATTACKS["same-word"]})
    record_transfer(tmp_path, record_study(tmp_path, trials))
    (matrix,) = transfer_matrices(load_transfers(tmp_path))
    assert np.flatnonzero(matrix.own.to_numpy()).tolist() == [0, 1, 4, 5, 10, 11, 14, 15]
    assert matrix.table().rows[0][1] == "(0.60)"


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(folder), "--output", str(tmp_path / "r")]) == 0
    assert "tables/claims.md" in capsys.readouterr().err
