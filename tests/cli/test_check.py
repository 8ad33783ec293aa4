"""`offramp check`: conditions on committed results, and every mistake that a file of conditions can hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from offramp._core.records import write_record
from offramp.cli.main import run
from offramp.reports.conditions import Condition, check_conditions

RESULTS = Path(__file__).parents[2] / "results"


def conditions(tmp_path: Path, *listed: Any) -> str:
    path = tmp_path / "conditions.yaml"
    path.write_text(yaml.safe_dump({"conditions": list(listed)}), encoding="utf-8")
    return str(path)


def verdict(folder: str, path: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run(["check", str(RESULTS / folder), path, "--json"])
    said = capsys.readouterr()
    assert ("NO" in said.err) == (code == 1)
    return code, json.loads(said.out)


def test_conditions_on_accuracy_cost_and_attacks(tmp_path, capsys) -> None:
    path = conditions(
        tmp_path,
        {"metric": "accuracy", "where": {"command": "evaluate"}, "min": 0.7},
        {"metric": "cost", "where": {"command": "evaluate", "name": "joint"}, "max": 0.6},
        {"metric": "gain_drop", "where": {"recipe": "same-word"}, "max": 0.5},
        {
            "metric": "per_exit.score",
            "where": {"name": "sweet", "layer": 6, "metric": "accuracy"},
            "min": 0.7,
        },
    )
    code, result = verdict("demo", path, capsys)
    assert code == 1
    assert result["passed"] is False
    accuracy, cost, gain, deepest = result["conditions"]
    assert (accuracy["passed"], accuracy["matching"]) == (True, 3)
    records = [json.loads(line) for line in (RESULTS / "demo/records.jsonl").read_text().splitlines()]
    (spent,) = (
        r["metrics"]["cost"] for r in records if r["command"] == "evaluate" and r["path"].startswith("joint/")
    )
    assert (cost["value"], cost["at_least"], cost["at_most"]) == (pytest.approx(spent), None, 0.6)
    assert cost["passed"] == (spent <= 0.6)
    assert gain["passed"] is False  # the worst of several numbers decides
    assert gain["value"] == 1.0
    assert deepest["worst"].startswith("sweet, per_exit row ")


def test_conditions_on_latency_and_guarantees(tmp_path, capsys) -> None:
    rows = json.loads((RESULTS / "bench-minilm-sst2/record.json").read_text())["tables"]["bench"]
    p95 = [row["p95"] for row in rows if row["peer"] == "ours-int8" and row["batch_size"] == 1]
    where = {"peer": "ours-int8", "batch_size": 1}
    path = conditions(tmp_path, {"metric": "bench.p95", "where": where, "max": max(p95)})
    code, result = verdict("bench-minilm-sst2", path, capsys)
    assert (code, result["conditions"][0]["matching"]) == (0, len(p95))
    path = conditions(tmp_path, {"metric": "bench.p95", "where": where, "max": max(p95) - 0.001})
    assert verdict("bench-minilm-sst2", path, capsys)[0] == 1
    path = conditions(tmp_path, {"metric": "promises.kept", "min": 1})
    assert verdict("bench-promises", path, capsys)[0] == 0


def test_a_drift_of_depth_is_a_rise_above_a_baseline(tmp_path) -> None:
    def record(folder: str, depth: float | None) -> Path:
        write_record(tmp_path / folder, command="evaluate", config={}, metrics={"depth": depth}, seed=0)
        return tmp_path / folder

    before = str(record("before", 3.0))
    condition = Condition("depth", baseline=before, max_rise=0.2, max_fall=0.5)
    for depth, passed in ((3.2, True), (3.21, False), (2.5, True), (2.49, False), (None, False)):
        (outcome,) = check_conditions(record("after", depth), [condition])
        assert outcome.passed is passed
        assert (outcome.low, outcome.high) == (2.5, 3.2)


def test_a_baseline_lies_beside_the_file(tmp_path, capsys) -> None:
    for folder in ("runs", "main"):
        write_record(tmp_path / folder, command="evaluate", config={}, metrics={"cost": 0.5}, seed=0)
    path = conditions(tmp_path, {"metric": "cost", "baseline": "main", "max_rise": 0})
    assert run(["check", str(tmp_path / "runs"), path]) == 0
    assert "yes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("conditions: [", "cannot be read as YAML"),
        ("accuracy: 0.8", "must hold a list named conditions and nothing else, such as - {metric: accuracy, min: 0.8}"),
        ("conditions: []", "must hold a list named conditions"),
        ("conditions: [0.8]", "condition 1: expected keys such as {metric: accuracy, min: 0.8}, got 0.8"),
        ("conditions: [{min: 0.8}]", "condition 1: a condition needs a metric, such as {metric: accuracy, min: 0.8}"),
        ("conditions: [{metric: cost, mx: 1}]", "unknown key of a condition 'mx'. Did you mean 'max'?"),
        ("conditions: [{metric: cost}]", "cost has no bound: give one of min, max, max_rise, max_fall"),
        ("conditions: [{metric: cost, min: 1, max: 0}]", "no cost is at least 1 and at most 0: swap them"),
        ("conditions: [{metric: cost, max: low}]", "max must be a number, got 'low'"),
        ("conditions: [{metric: cost, max_rise: -1, baseline: x}]", "max_rise must be a number of at least 0, got -1"),
        ("conditions: [{metric: cost, max_rise: 1}]", "max_rise and max_fall need a baseline"),
        ("conditions: [{metric: cost, max: 1, baseline: x}]", "and a baseline needs them"),
        ("conditions: [{metric: cost, max: 1, where: joint}]", "expected values by name as where, got 'joint'"),
        ("conditions: [{metric: 5, max: 1}]", "expected a string as metric, got 5"),
        ("conditions: [{metric: acuracy, max: 1}]", "unknown metric 'acuracy'. Did you mean 'accuracy'?"),
        ("conditions: [{metric: per_exit.scroe, max: 1}]", "metric 'per_exit.scroe'. Did you mean 'per_exit.score'?"),
        ("conditions: [{metric: per_exot.score, max: 1}]", "metric 'per_exot.score'. Did you mean 'per_exit.…'?"),
        ("conditions: [{metric: cost, max: 1, where: {nam: joint}}]", "for cost 'nam'. Did you mean 'name'?"),
        ("conditions: [{metric: cost, max: 1, where: {name: jont}}]", "unknown name 'jont'. Did you mean 'joint'?"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_in_one_line(content, message, tmp_path, capsys) -> None:
    path = tmp_path / "conditions.yaml"
    path.write_text(content, encoding="utf-8")
    assert run(["check", str(RESULTS / "demo"), str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_what_is_missing_is_named(tmp_path, capsys) -> None:
    assert run(["check", str(RESULTS / "demo"), str(tmp_path / "none.yaml")]) == 2
    assert "no conditions at" in capsys.readouterr().err
    path = conditions(tmp_path, {"metric": "cost", "max": 1})
    assert run(["check", str(tmp_path / "none"), path]) == 2
    assert "no records at" in capsys.readouterr().err
    several = {"metric": "cost", "baseline": str(RESULTS / "demo"), "max_rise": 1}
    assert run(["check", str(RESULTS / "demo"), conditions(tmp_path, several)]) == 2
    assert "3 numbers of the baseline" in capsys.readouterr().err
