"""Conflict over the trials of a sweep: pooled by moment, and set against what separate classifiers gain."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offramp._core.run_files import GRADIENT_FILE, write_gradients
from offramp.metrics import score
from offramp.reports import ALL_FIGURES
from offramp.reports.text_table import NOTHING
from offramp.studies.training.conflict import conflict_study, conflict_tables
from offramp.studies.training.report import study_report
from offramp.studies.training.results import is_sweep, load_results
from offramp.studies.training.study import study
from tests.studies.made_up_trials import LAYERS, SWEEP, record_all


def products_of(seed: int) -> np.ndarray:
    """Products of random gradients `(batches, layers, exits, exits)`, none below the layer."""
    random = np.random.default_rng(seed)
    gradients = random.normal(size=(3, LAYERS[-1], len(LAYERS), 5))
    gradients *= (np.asarray(LAYERS) >= np.arange(1, LAYERS[-1] + 1)[:, None])[None, :, :, None]
    return np.einsum("blid,bljd->blij", gradients, gradients)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sweep = record_all(tmp_path)
    for trial in sweep.trials:
        products = products_of(trial.seed)
        if trial.method.name == "joint":
            write_gradients(
                tmp_path / trial.folder / GRADIENT_FILE, {0: products, 50: products, 100: products}
            )
        if trial.method.name == "sweet":  # its exits share nothing
            alone = products * np.eye(len(LAYERS))
            write_gradients(tmp_path / trial.folder / GRADIENT_FILE, {0: alone, 100: alone})
    return tmp_path


def test_trials_are_pooled_by_moment(folder: Path) -> None:
    conflicts = conflict_study(load_results(folder), resamples=20)
    assert list(conflicts.maps) == [("minilm-l6", "joint")]
    maps = conflicts.maps["minilm-l6", "joint"]
    assert list(maps) == ["0 % of training", "50 % of training", "100 % of training"]
    assert {conflict.batches for conflict in maps.values()} == {2 * 3 * 3}  # tasks, seeds, batches


def test_the_gap_is_to_the_separate_classifier_of_the_same_task_and_seed(folder: Path) -> None:
    results = load_results(folder)
    conflicts = conflict_study(results, resamples=20)
    rows = conflicts.points.to_dict("records")
    assert len(rows) == 3 * 2 * 3 * len(LAYERS)
    row = next(r for r in rows if (r["task"], r["seed"], r["exit_layer"]) == ("rte", 2, LAYERS[1]))
    result, other = (
        next(r for r in results if (r.method, r.setting.task, r.seed) == (name, "rte", 2)).trace
        for name in ("multi_model", "joint")
    )
    scores = [score("accuracy", t.require_labels(), t.predictions()[:, 1]) for t in (result, other)]
    assert row["gap"] == pytest.approx(scores[0] - scores[1])
    assert all(
        r["low"] <= r["correlation"] <= r["high"] and r["models"] == 6
        for r in conflicts.relation.to_dict("records")
    )


@pytest.mark.parametrize(
    ("steps", "asked", "moments"),
    [
        ([0, 50], (0, 0.5), ["0 %", "50 %"]),
        ([0, 6, 11], (0, 0.5, 1), ["0 %", "50 %", "100 %"]),  # shares become whole steps
        ([0, 1], (0, 0.5, 1), ["0 %", "100 %"]),
        ([0], (0,), ["0 %"]),
        ([0, 60, 120], (), ["0 %", "50 %", "100 %"]),  # in records that do not tell them
    ],
)
def test_moments_are_the_shares_that_were_asked_for(
    folder: Path, steps: list[int], asked: tuple[float, ...], moments: list[str]
) -> None:
    results = [
        replace(result, conflict=asked, gradients={step: products_of(result.seed) for step in steps})
        for result in load_results(folder)
        if result.method == "joint"
    ]
    maps = conflict_study(results, resamples=20).maps["minilm-l6", "joint"]
    assert list(maps) == [f"{share} of training" for share in moments]


def test_a_moment_that_a_method_lacks_is_a_gap_in_the_table(folder: Path) -> None:
    results = load_results(folder)
    for i, result in enumerate(results):
        if result.method == "sweet":
            gradients = {step: products_of(result.seed) for step in (0, 100)}
            results[i] = replace(result, gradients=gradients)
    rows = conflict_tables(conflict_study(results, resamples=20))["conflict-exits"].rows
    assert {row[4] for row in rows if row[1] == "SWEET"} == {NOTHING}
    assert NOTHING not in {row[4] for row in rows if row[1] == "Early-Exit"}


def test_models_of_other_rates_are_not_pooled(tmp_path: Path) -> None:
    sweep = record_all(tmp_path, {**SWEEP, "tasks": ["rte"], "learning_rate": [0.01, 0.9]})
    for trial in sweep.trials:
        if trial.method.name == "joint":
            write_gradients(tmp_path / trial.folder / GRADIENT_FILE, {0: products_of(trial.seed)})
    compared = study(load_results(tmp_path), resamples=20).compared
    conflicts = conflict_study(compared, resamples=20)
    assert conflicts.maps["minilm-l6", "joint"]["0 % of training"].batches == 3 * 3  # seeds, batches
    assert conflicts.relation["models"].tolist() == [3]


def test_the_owners_of_a_layer_have_a_table(folder: Path) -> None:
    conflicts = conflict_study(load_results(folder), resamples=20)
    table = conflict_tables(conflicts)["owners"]
    assert [row[2:4] for row in table.rows[:5]] == [
        *(("0 % of training", str(layer)) for layer in LAYERS),
        ("50 % of training", str(LAYERS[0])),
    ]
    owners = conflicts.maps["minilm-l6", "joint"]["0 % of training"].owners
    for exit, row in enumerate(table.rows[: len(LAYERS)]):
        assert float(row[4]) == pytest.approx(owners.norm[0, exit], abs=1e-3)
        assert float(row[5]) == pytest.approx(owners.norm_share[0, exit], abs=0.01)
    assert sum(float(row[5]) for row in table.rows[: len(LAYERS)]) == pytest.approx(1, abs=0.02)
    assert sum(float(row[6].replace("−", "-")) for row in table.rows[: len(LAYERS)]) == pytest.approx(
        1, abs=0.02
    )


def test_nothing_measured_is_nothing_shown(tmp_path: Path) -> None:
    record_all(tmp_path)
    conflicts = conflict_study(load_results(tmp_path))
    assert not conflicts.maps
    assert not len(conflicts.points)
    assert not len(conflicts.relation)


def test_the_report_shows_it_and_how_calibrated_the_exits_are(folder: Path) -> None:
    files = study_report(folder, folder / "report", figures=ALL_FIGURES, resamples=20)
    names = ("conflict-joint", "owners-joint", "conflict-gap-joint", "reliability-sweet")
    figures = {f"{name}-minilm-l6" for name in names}
    assert {f"figures/{name}.svg" for name in figures} <= set(files)
    assert "conflict-sweet" not in " ".join(files)
    assert "Does conflict tell the gap?" in files["tables/conflict-relation.md"].read_text()
    assert " → " in files["tables/calibration.md"].read_text()


def test_records_of_kept_models_belong_to_their_trials(folder: Path) -> None:
    record = next(folder.rglob("record.json"))
    (record.parent / "run").mkdir()
    kept = record.parent / "run" / "train.json"
    kept.write_text(record.read_text().replace('"cell"', '"other"'))
    assert is_sweep(folder)
    (record.parent.parent / "unfinished" / "run").mkdir(parents=True)
    shutil.copy(kept, record.parent.parent / "unfinished" / "run" / "train.json")
    assert is_sweep(folder), "a trial whose training has ended and whose scores are still to come"
    kept.rename(folder / "train.json")
    assert not is_sweep(folder)
