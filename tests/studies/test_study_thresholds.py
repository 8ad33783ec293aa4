"""Own thresholds against shared ones, on the recorded models of a study."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from offramp._core.errors import DataError
from offramp.cli.main import run
from offramp.criteria import make_criterion
from offramp.studies.training.results import load_results
from offramp.studies.training.thresholds import (
    compare_layer_zero,
    compare_thresholds,
    held_out,
    layer_zero_table,
    thresholds_table,
)
from tests.evaluation.made_up import trace_of
from tests.studies.made_up_trials import SWEEP, record_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("thresholds")
    record_all(path, {**SWEEP, "strategies": ["joint"], "seeds": [0, 1]})
    return path


def test_halves_worked_out_by_hand() -> None:
    """Exit 1 is right and unsure, exit 2 wrong and sure: all texts leave at exit 1, and none at exit 2."""
    run = trace_of(np.tile([0.6, 0.9, 0.99], (240, 1)), np.tile([True, False, True], (240, 1)), (1, 2, 4))
    result: Any = SimpleNamespace(logits_trace=run, rule=make_criterion("confidence", 0.7), metric="accuracy")
    first = run.flops[0, 0] / run.full_flops[0]
    for form in ("own", "shared"):
        assert held_out(result, run, form) == {"cost": pytest.approx(first), "drop": 0}


def test_layer_zero_is_compared_where_there_is_one(folder: Path) -> None:
    """Layer 0 is right and sure about half of the texts, and the other exits about the same half."""
    assert compare_layer_zero(load_results(folder)).empty
    sure = np.tile([[0.95, 0.9, 0.99], [0.55, 0.6, 0.99]], (120, 1))
    right = np.tile([[True, True, True], [False, False, True]], (120, 1))
    run = trace_of(sure, right, (0, 1, 4))
    result = replace(load_results(folder)[0], logits_trace=run, rule=make_criterion("confidence"))
    frame = compare_layer_zero([result])
    full = run.full_flops[0]
    assert list(frame["allowed"]) == [0.01, 0.0]
    assert frame["own_cost"].tolist() == pytest.approx([(run.flops[0, 0] / full + 1) / 2] * 2)
    assert frame["without_cost"].tolist() == pytest.approx([(run.flops[0, 1] / full + 1) / 2] * 2)
    assert not frame[["own_drop", "without_drop"]].any(axis=None)
    table = layer_zero_table(frame)
    assert [row[1:3] for row in table.rows[2:]] == [("mean of 1", "1"), ("mean of 1", "0")]


def test_the_table_has_paired_intervals_over_tasks(folder: Path) -> None:
    frame = compare_thresholds(load_results(folder))
    assert len(frame) == len(load_results(folder))
    row = thresholds_table(frame).rows[-1]
    means = frame.groupby("task")[["own_cost", "shared_cost"]].mean()
    differences = means["own_cost"] - means["shared_cost"]
    assert row[:4] == ("all", f"mean of {len(means)}", "all", str(len(frame)))
    with warnings.catch_warnings():  # the made-up differences are nearly equal
        warnings.simplefilter("ignore", RuntimeWarning)
        low = ttest_1samp(differences, 0).confidence_interval().low
    assert f"{abs(low):.3f}" in row[6]
    assert f"{abs(differences.mean()):.3f}" in row[6]


def test_one_model_has_no_interval() -> None:
    numbers = {"shared_cost": 0.5, "own_cost": 0.4, "shared_drop": 0.01, "own_drop": 0.0}
    frame = pd.DataFrame([{"encoder": "e", "task": "t", "method": "m", "size": None, "seed": 0, **numbers}])
    assert thresholds_table(frame).rows[-1][4:] == ("0.500", "0.400", "−0.100", "1.00", "0.00", "−1.00")


def test_the_command_writes_it_beside_the_study(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(folder), "--thresholds"]) == 0
    text = (folder / "thresholds" / "report.md").read_text(encoding="utf-8")
    assert "Own thresholds against shared ones" in text
    assert run(["report", str(tmp_path), "--thresholds"]) != 0
    assert run(["report", str(folder), "--thresholds", "--rules"]) != 0
    errors = capsys.readouterr().err
    assert "--thresholds compares thresholds on one study that trains" in errors
    assert "--rules and --thresholds make a report each: give one of them" in errors


def test_a_study_of_regression_is_refused(folder: Path) -> None:
    scores = [
        replace(
            r, logits_trace=replace(r.logits_trace, logits=r.logits_trace.logits[:, :, :1], kind="regression")
        )
        for r in load_results(folder)
    ]
    with pytest.raises(DataError, match="thresholds are compared for classifiers"):
        compare_thresholds(scores)
