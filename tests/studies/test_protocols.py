"""Several sweeps in one report: pooling, and whatever else differs, as a factor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.cli.main import run
from offramp.studies.training.protocols import load_sweeps, protocols_table
from offramp.studies.training.report import study_report, sweeps_report
from offramp.studies.training.results import load_results
from offramp.studies.training.study import study
from tests.studies.made_up_trials import LAYERS, SWEEP, record_all

FEW = 40  # resamples


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sweeps with two poolings, of which one has a task and a seed less; not to be changed."""
    root = tmp_path_factory.mktemp("poolings")
    plans: dict[str, dict[str, Any]] = {
        "mean": {"pooling": "mean"},
        "pooler": {"pooling": "pooler", "tasks": ["sst2"], "seeds": [0, 2]},
        "bare": {"pooling": "pooler", "tasks": ["sst2"], "seeds": [0], "training": {"warmup": 0}},
        "more": {"pooling": "mean", "strategies": ["equal_norm"]},
    }
    for name, change in plans.items():
        record_all(root / name, {**SWEEP, **change}, sweet=1.2 if name == "mean" else 2.5, equal_norm=1.4)
    return {name: root / name for name in plans}


def test_poolings_stand_side_by_side_over_common_tasks_and_seeds(folders: dict[str, Path]) -> None:
    results, left_out = load_sweeps([folders["mean"], folders["pooler"]])
    models = {(r.setting.backbone, r.setting.task, r.seed) for r in results}
    assert models == {
        (f"minilm-l6, {pooling}", "sst2", seed) for pooling in ("mean", "pooler") for seed in (0, 2)
    }
    assert sorted(left_out) == [
        "minilm-l6, mean, rte: seeds [0, 1, 2], which not all protocols and methods have",
        "minilm-l6, mean, sst2: seeds [1], which not all protocols and methods have",
    ]


def test_the_table_has_the_differences_of_each_pooling_alone(folders: dict[str, Path]) -> None:
    compared = study(load_sweeps([folders["mean"], folders["pooler"]])[0], resamples=FEW)
    table = protocols_table(compared)
    assert table.header == (
        *("method", "encoder", "task", "examples", "seeds", "mean over exits"),
        *(f"layer {layer}" for layer in LAYERS),
        *("fast (cost ≤ ½)", "slow (cost ½–1)"),
    )
    assert [row[:2] for row in table.rows] == [
        (method, encoder)
        for method in ("Multi-Model", "SWEET")
        for encoder in ("minilm-l6, mean", "minilm-l6, pooler", "BERT, DeBERTa (SWEET paper)")
    ]
    assert [row[5] for row in table.rows[2::3]] == ["+2.3", "+1.1"]
    for name in ("mean", "pooler"):
        own = [r for r in load_results(folders[name]) if r.setting.task == "sst2" and r.seed != 1]
        means = {m: np.mean([r.scores for r in own if r.method == m], axis=0) for m in ("joint", "sweet")}
        wanted = 100 * (means["sweet"] - means["joint"])
        (row,) = (row for row in table.rows if row[:2] == ("SWEET", f"minilm-l6, {name}"))
        points = [float(cell.split()[0].replace("−", "-")) for cell in row[5 : 6 + len(LAYERS)]]
        assert points == pytest.approx([wanted.mean(), *wanted], abs=0.051)
        alone = study(own, resamples=FEW).differences.query("method == 'sweet' and measure == 'fast'")
        assert float(row[-2].split()[0].replace("−", "-")) == pytest.approx(
            100 * alone["difference"].item(), abs=0.051
        )
    assert len({row[5] for row in table.rows if row[0] == "SWEET"}) == 3  # made up to differ


def test_an_average_takes_the_place_of_its_tasks(folders: dict[str, Path]) -> None:
    table = protocols_table(study(load_sweeps([folders["mean"]])[0], resamples=FEW))
    assert [row[1:3] for row in table.rows if row[4] != "–"] == [("minilm-l6", "mean of 2 tasks")] * 2


def test_whatever_differs_names_the_protocol(folders: dict[str, Path]) -> None:
    results, _ = load_sweeps([folders[name] for name in ("mean", "pooler", "bare")])
    assert {r.setting.backbone for r in results} == {
        "minilm-l6, mean, warmup 0.1",
        "minilm-l6, pooler, warmup 0.1",
        "minilm-l6, pooler, warmup 0",
    }
    assert {r.seed for r in results} == {0}


def test_sweeps_of_one_protocol_add_up(folders: dict[str, Path]) -> None:
    results, left_out = load_sweeps([folders["mean"], folders["more"]])
    assert left_out == []
    compared = study(results, resamples=FEW)
    assert compared.methods == ["joint", "multi_model", "sweet", "equal_norm"]
    assert {setting.backbone for setting in compared.groups} == {"minilm-l6"}


def test_a_model_in_two_sweeps_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    record_all(tmp_path / "again", {**SWEEP, "pooling": "mean", "tasks": ["rte"], "learning_rate": 0.01})
    with pytest.raises(DataError, match=r"mean and .*again both hold minilm-l6/rte/.*: give one of the two"):
        load_sweeps([folders["mean"], tmp_path / "again"])
    assert len(load_sweeps([folders["mean"]] * 2)[0]) == len(load_results(folders["mean"]))


def test_the_report_of_several_sweeps(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sweeps_report([folders["mean"], folders["pooler"]], tmp_path / "both", resamples=FEW)
    text = files["report.md"].read_text(encoding="utf-8")
    assert text.startswith("# mean, pooler\n\n12 models, 2 comparisons.\n\n> left out: minilm-l6, mean, ")
    assert text.index('<a id="protocols">') < text.index('<a id="differences">')
    assert (
        'id="protocols"'
        not in study_report(folders["mean"], tmp_path / "one", resamples=FEW)["report.md"].read_text()
    )
    several = [str(folders["mean"]), str(folders["pooler"])]
    assert run(["report", *several]) == 2
    assert "give its folder with --output" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert run(["report", *several, str(tmp_path / "none"), "--output", str(tmp_path / "x")]) == 2
    assert "none is none: leave it out" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "x").exists()
