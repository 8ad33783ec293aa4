"""Exit rules compared on the recorded models of a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.cli.main import run
from offramp.criteria import CRITERIA, with_threshold
from offramp.engine.policy import Policy
from offramp.evaluation import area, speed_accuracy
from offramp.studies.training.results import load_results
from offramp.studies.training.rules import BASELINE, RULES, apply_rules, recalled, rules_report, split_rows
from offramp.studies.training.study import study
from tests.studies.made_up_trials import SWEEP, record_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules")
    record_all(path, {**SWEEP, "strategies": ["joint", "multi_model"], "seeds": [0, 1]})
    return path


def test_every_rule_with_a_threshold_takes_part() -> None:
    assert {rule.name for rule in RULES.values()} == {n for n, rule in CRITERIA.items() if rule.tunable}
    assert next(iter(RULES)) == BASELINE


def test_rules_are_fitted_on_rows_that_are_not_scored(folder: Path) -> None:
    fitted, scored = split_rows(150)
    assert sorted([*fitted, *scored]) == list(range(150))
    results = load_results(folder)
    ruled, left_out = apply_rules(results)
    gone = {"CAP", "Learned gates"}  # the recorded traces have neither residuals nor gates
    assert {result.method for result in ruled} == set(RULES) - gone
    assert [reason.partition(":")[0] for reason in left_out] == ["Learned gates", "CAP"]
    assert all(reason.endswith(f"({len(results)} models)") for reason in left_out)
    by_accuracy = next(result for result in ruled if result.method == "Vote by accuracy")
    original = results[0].trace
    right = original.predictions() == original.require_labels()[:, None]
    assert by_accuracy.rule.weights == pytest.approx(right[fitted].mean(axis=0))  # type: ignore[attr-defined]
    assert (by_accuracy.logits_trace.logits == results[0].logits_trace.logits[scored]).all()


@pytest.mark.parametrize("threshold", [0.9, 0.99, 0.999])
def test_recall_answers_as_a_policy_with_recall(folder: Path, threshold: float) -> None:
    for result in load_results(folder):
        rule = with_threshold(result.rule, threshold)
        exits, temperatures = result.logits_trace.exit_layers, result.temperatures
        policy = Policy(rule, exits, temperatures, recall=True)
        expected = policy.decide(result.logits_trace)
        told = Policy(rule, exits).decide(recalled(result).trace)
        assert (told.exit == expected.exit).all()
        assert (told.prediction == expected.prediction).all()
        assert (expected.answer_exit < expected.exit).any()  # else recall would do nothing here


def test_rules_are_compared_with_confidence_model_by_model(folder: Path) -> None:
    ruled, _ = apply_rules(load_results(folder))
    compared = study(ruled, resamples=30)
    assert compared.methods[0] == BASELINE
    assert {setting.backbone for setting in compared.groups} == {
        "minilm-l6, Early-Exit",
        "minilm-l6, Multi-Model",
    }
    setting, group = next(iter(compared.groups.items()))
    areas = {
        method: np.mean(
            [area(speed_accuracy(result.trace, result.rule), (0.0, 0.5)) for result in group[method]]
        )
        for method in (BASELINE, "Patience")
    }
    rows = compared.differences.query("method == 'Patience' and measure == 'fast'")
    row = rows[(rows["backbone"] == setting.backbone) & (rows["where"] == setting.task)].iloc[0]
    assert row["difference"] == pytest.approx(areas["Patience"] - areas[BASELINE])
    binary = compared.differences.query("method == 'Margin' and measure == 'fast'")
    assert binary["difference"].abs().max() < 0.002  # with two classes a margin orders as confidence does


def test_the_report_has_a_table_for_rules_alone(folder: Path, tmp_path: Path) -> None:
    files = rules_report(folder, tmp_path / "out", resamples=20)
    text = files["report.md"].read_text(encoding="utf-8")
    assert "Exit rules: differences in points" in text
    assert "Against Confidence, in points." in text
    assert "left out: CAP: 'cap' needs the residuals" in text
    assert "| layer 4 |" not in text
    averaged = files["tables/rules.md"].read_text(encoding="utf-8")
    assert "| minilm-l6, Early-Exit | mean of 2 tasks | Patience |" in averaged
    assert "| rte |" not in averaged
    assert {name for name in files if name.startswith("tables/")} == {
        f"tables/{name}.md" for name in ("rules", "tasks", "areas", "winners")
    }


def test_the_command_writes_it_beside_the_study(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "offramp.studies.training.rules.study", lambda ruled, resamples, progress: study(ruled, resamples=5)
    )
    assert run(["report", str(folder), "--rules", "--figures", "none"]) == 0
    assert (folder / "rules" / "report.md").exists()
    capsys.readouterr()
    assert run(["report", str(folder), str(folder), "--rules"]) != 0
    assert run(["report", str(tmp_path), "--rules"]) != 0
    assert capsys.readouterr().err.count("--rules compares exit rules on one study that trains") == 2


def test_a_study_of_regression_is_refused(folder: Path) -> None:
    results = load_results(folder)
    scores = [
        replace(
            result,
            temperatures=None,
            logits_trace=replace(
                result.logits_trace, logits=result.logits_trace.logits[:, :, :1], kind="regression"
            ),
        )
        for result in results
    ]
    with pytest.raises(
        DataError, match="no model of this study can leave by Confidence: rules are compared for"
    ):
        apply_rules(scores)
