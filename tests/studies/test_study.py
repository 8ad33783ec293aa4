"""Methods compared over tasks, from recorded trials."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError, DataError
from offramp.studies.grid import run_grid
from offramp.studies.training.plan import make_sweep, tuned_rates
from offramp.studies.training.results import ModelSetting, is_sweep, load_results, rate_frame, tried_rates
from offramp.studies.training.study import study
from tests.studies.made_up_trials import LAYERS, SWEEP, record_all

FEW = 60  # resamples: enough for signs


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete sweep; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    record_all(folder)
    return folder


def mean_accuracy(folder: Path, method: str, task: str) -> float:
    """Straight from the traces."""
    results = [r for r in load_results(folder) if (r.method, r.setting.task) == (method, task)]
    return float(np.mean([r.trace.predictions() == r.trace.require_labels()[:, None] for r in results]))


def rows_of(table: Any, **wanted: Any) -> list[dict[str, Any]]:
    rows = table.to_dict("records")
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def test_differences_are_those_of_the_traces(toy: Path) -> None:
    methods = study(load_results(toy), resamples=FEW)
    assert methods.methods == ["joint", "multi_model", "sweet"]
    assert methods.others == ["multi_model", "sweet"]
    gaps = {}
    for task in ("sst2", "rte"):
        for method in ("multi_model", "sweet"):
            (row,) = rows_of(methods.differences, where=task, method=method, measure="exits")
            gaps[task, method] = mean_accuracy(toy, method, task) - mean_accuracy(toy, "joint", task)
            assert row["difference"] == pytest.approx(gaps[task, method])
            assert row["low"] <= row["difference"] <= row["high"]
            assert row["seeds"] == 3
    for method in ("multi_model", "sweet"):
        (row,) = rows_of(methods.differences, where="mean of 2 tasks", method=method, measure="exits")
        assert row["difference"] == pytest.approx((gaps["sst2", method] + gaps["rte", method]) / 2)
        assert row["low"] > 0
    (cheap,) = rows_of(methods.differences, where="sst2", method="multi_model", measure="fast")
    assert cheap["difference"] < gaps["sst2", "multi_model"]  # it recomputes


def test_intervals_speak_of_seeds_too(toy: Path) -> None:
    """With one model a method, only examples are drawn: the interval does not grow for want of seeds alone."""
    results = load_results(toy)
    widths = []
    for kept in (results, [r for r in results if r.seed == 0]):
        (row,) = rows_of(
            study(kept, resamples=200).differences, where="sst2", method="sweet", measure="exits"
        )
        widths.append(row["high"] - row["low"])
    assert widths[0] < widths[1]


def test_comparisons_have_exits_areas_and_winners(toy: Path) -> None:
    comparison = study(load_results(toy), resamples=FEW).comparisons[ModelSetting("minilm-l6", "sst2")]
    names = set(comparison.scores["place"].to_pylist())
    assert names == {
        "layer 1",
        "layer 4",
        "layer 6",
        "layer 12",
        "mean of layers 1, 4, 6, 12",
        "fast",
        "slow",
        "whole",
    }
    winners = {row["place"]: row["best"] for row in comparison.winners.to_pylist()}
    assert winners["layer 1"] == "multi_model"
    assert winners["slow"] == "sweet"  # a cascade that recomputes is dear
    assert {name: len(curves) for name, curves in comparison.curves.items()} == {
        "joint": 3,
        "multi_model": 3,
        "sweet": 3,
    }


def test_a_sweep_that_is_not_complete_yet(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path, dirs_exist_ok=True)
    trials = make_sweep(SWEEP).trials
    gone = next(c for c in trials if (c.task, c.method.name, c.seed) == ("rte", "sweet", 2))
    shutil.rmtree(tmp_path / gone.folder)
    methods = study(load_results(tmp_path), resamples=FEW)
    (row,) = rows_of(methods.differences, where="rte", method="sweet", measure="exits")
    assert row["seeds"] == 2
    assert methods.left_out == (
        "minilm-l6, rte, joint: seeds [2], which not all methods have",
        "minilm-l6, rte, multi_model: seeds [2], which not all methods have",
    )


def test_one_baseline_for_all_tasks(toy: Path, tmp_path: Path) -> None:
    """A task without it is told, not silently compared with something else."""
    shutil.copytree(toy, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "minilm-l6" / "rte" / "joint")
    methods = study(load_results(tmp_path), resamples=FEW)
    assert methods.methods == ["joint", "multi_model", "sweet"]
    assert set(methods.differences["where"]) == {"sst2"}
    assert methods.left_out == ("differences at places without joint: minilm-l6, rte",)
    assert methods.claims == {"multi_model": 2.3, "sweet": 1.1}
    shutil.rmtree(tmp_path / "minilm-l6" / "sst2" / "joint")
    methods = study(load_results(tmp_path), resamples=FEW)
    assert methods.methods == ["multi_model", "sweet"]
    assert methods.others == ["sweet"]
    assert [row["measure"] for row in rows_of(methods.differences, where="mean of 2 tasks")] == [
        *("exits", "fast", "slow"),
        *(f"layer {layer}" for layer in LAYERS),
    ]
    assert methods.claims == {}  # the paper's are against Early-Exit


def test_methods_without_a_common_seed_are_not_paired(toy: Path) -> None:
    results = [
        r for r in load_results(toy) if (r.method == "joint") == (r.seed == 0) or r.setting.task != "rte"
    ]
    methods = study(results, resamples=FEW)
    assert list(methods.groups) == [ModelSetting("minilm-l6", "sst2")]
    assert methods.left_out == ("minilm-l6, rte: no seed that all methods have",)


def test_sizes_beyond_the_data_are_all_there_are(tmp_path: Path) -> None:
    sweep = record_all(tmp_path, {**SWEEP, "tasks": ["rte"], "seeds": [0], "train_sizes": [200, 500, 900]})
    for trial in sweep.trials:
        path = tmp_path / trial.folder / "record.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record["metrics"]["train_examples"] = min(trial.train_size or 0, 300)
        path.write_text(json.dumps(record), encoding="utf-8")
    results = load_results(tmp_path)
    assert len(results) == 6  # those of 500 and of 900 examples are the same models
    assert {result.setting.train_size for result in results} == {200, None}


def test_models_are_doubted_in_one_sentence_a_kind(toy: Path) -> None:
    results = load_results(toy)
    assert study(results, resamples=FEW).doubts == ()
    for result in results[:2]:
        result.trace.logits[:, -1] *= -1
    (doubt,) = study(results, resamples=FEW).doubts
    assert doubt.startswith("2 of 18 models, such as minilm-l6/")
    assert doubt.endswith("[worse-deeper]")


def test_averages_are_by_size_where_there_are_several(tmp_path: Path) -> None:
    record_all(tmp_path, {**SWEEP, "train_sizes": [200, 500], "seeds": [0], "strategies": ["joint", "sweet"]})
    methods = study(load_results(tmp_path), resamples=FEW)
    rows = rows_of(methods.differences, where="mean of 2 tasks", method="sweet", measure="exits")
    assert [row["train_size"] for row in rows] == [200, 500]


def test_learning_rates_are_chosen_by_the_mean_over_exits(tmp_path: Path) -> None:
    tuning = {**SWEEP, "tasks": ["trec"], "seeds": [0], "learning_rate": [0.01, 0.9]}
    record_all(tmp_path, tuning)  # made up so that more is better
    assert tuned_rates(tmp_path) == {("minilm-l6", name): 0.9 for name in ("joint", "multi_model", "sweet")}
    rows = rows_of(tried_rates(rate_frame(load_results(tmp_path))), method="sweet")
    assert [(row["learning_rate"], row["best"]) for row in rows] == [(0.01, False), (0.9, True)]
    assert rows[1]["score"] == pytest.approx(np.mean(load_results(tmp_path)[-1].scores))
    methods = study(load_results(tmp_path), resamples=FEW)
    assert methods.methods == ["joint", "multi_model", "sweet"]
    assert {result.learning_rate for result in methods.compared} == {0.9}
    assert "3 models with other learning rates" in methods.left_out[0]

    plan = {**SWEEP, "tuned_on": str(tmp_path)}
    assert {trial.learning_rate for trial in make_sweep(plan).trials} == {0.9}
    with pytest.raises(ConfigError, match=r"trec was used to choose learning rates .* leave it out"):
        make_sweep({**plan, "tasks": ["trec"]})
    with pytest.raises(ConfigError, match="no learning rates for pcgrad on minilm-l6"):
        make_sweep({**plan, "strategies": ["pcgrad"]})
    borrowed = make_sweep({**plan, "strategies": {"pcgrad": {"tuned_as": "joint"}}})
    assert {(trial.method.name, trial.learning_rate) for trial in borrowed.trials} == {("pcgrad", 0.9)}
    with pytest.raises(ConfigError, match="no learning rates for jiont on minilm-l6"):
        make_sweep({**plan, "strategies": {"pcgrad": {"tuned_as": "jiont"}}})
    with pytest.raises(ConfigError, match="run that sweep first"):
        make_sweep({**plan, "tuned_on": str(tmp_path / "none")})


def test_folders_that_are_no_sweep(tmp_path: Path) -> None:
    assert not is_sweep(tmp_path)
    assert not is_sweep(tmp_path / "none")
    with pytest.raises(DataError, match="no trials of a sweep"):
        load_results(tmp_path)
    sweep = record_all(tmp_path, {**SWEEP, "tasks": ["sst2"], "seeds": [0]})
    assert is_sweep(tmp_path)
    (tmp_path / sweep.trials[0].folder / "trace.npz").unlink()
    with pytest.raises(DataError, match=r"trace\.npz is missing: delete the record beside it, and run its"):
        load_results(tmp_path)


def test_rates_are_compared_over_the_same_tasks(tmp_path: Path) -> None:
    """A rate that has only seen the easy task yet would win."""
    easy = {**SWEEP, "tasks": ["trec"], "seeds": [0], "learning_rate": [0.01, 0.9]}
    record_all(tmp_path, easy)
    record_all(tmp_path, {**easy, "tasks": ["qnli"], "learning_rate": [0.01]}, joint=0.1)
    results = load_results(tmp_path)
    assert set(rate_frame(results).query("best")["learning_rate"]) == {0.01}
    with pytest.raises(ConfigError, match="not every learning rate of joint on minilm-l6 has been tried"):
        tuned_rates(tmp_path)


def test_rates_are_taken_from_a_finished_sweep_alone(tmp_path: Path) -> None:
    plan = {**SWEEP, "tasks": ["trec"], "seeds": [0], "learning_rate": [0.01, 0.9]}
    sweep = record_all(tmp_path, plan)
    assert run_grid(sweep, tmp_path) == {}  # all is recorded: it only notes what there is to be
    assert set(tuned_rates(tmp_path).values()) == {0.9}
    for trial in sweep.trials:
        if trial.learning_rate == 0.9:
            shutil.rmtree(tmp_path / trial.folder)
    with pytest.raises(ConfigError, match=r"trec/joint/nall-lr0\.9-seed0 has no record yet .* finish"):
        tuned_rates(tmp_path)
