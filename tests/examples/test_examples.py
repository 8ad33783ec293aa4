"""Every example runs from its first line to its last, offline: with a tiny encoder and a file instead of downloads."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cyclopts
import pytest

from offramp.criteria import CRITERIA
from tests.studies.trained_sweep import write_reviews

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
# The text that each script prints, as a regular expression.
PRINTED = {
    "attack_and_check": r"patience, same-word: layer \d\.\d\d before, \d\.\d\d after; (nan|-?\d+)% of the savings lost",
    "compare_strategies": r"(?s)multi_model +\d.*sweet",
    "export_without_torch": r"[01] \(0\.\d\d\) after layer \d, cost [01]\.\d\d",
    "own_exit_rule": r"gini: area under its curve 0\.\d{3}; tuned: accuracy 0\.\d{3}(?s:.*)Prediction\(",
    "own_file_to_service": r'"label": "[01]"',
    "threshold_for_budget": r"budget 0\.90: threshold \d\.\d{3}, cost 0\.\d\d, accuracy \d\.\d{3} \[",
}
SMALL: dict[str, dict[str, Any]] = {
    "attack_and_check": {"examples": 3, "rounds": 1},
    "own_file_to_service": {"text": "text", "label": "label", "max_steps": 30},
}


def main_of(script: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    spec = importlib.util.spec_from_file_location(f"example_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses read their annotations
    spec.loader.exec_module(module)
    main: Callable[..., None] = module.main
    return main


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs(
    script: Path,
    tiny_encoder: Path,
    tiny_data: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reviews = write_reviews(tmp_path / "reviews.csv", tiny_data)
    source = [reviews] if script.stem == "own_file_to_service" else [str(reviews)]
    options = {"backbone": str(tiny_encoder), "output": tmp_path / "run", **SMALL.get(script.stem, {})}
    try:
        main_of(script, monkeypatch)(*source, **options)
    finally:
        CRITERIA.pop("gini", None)  # which an example enters
    assert re.search(PRINTED[script.stem], capsys.readouterr().out)


def test_every_script_is_described_and_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {script.stem for script in SCRIPTS} == set(PRINTED)
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert 'if __name__ == "__main__":\n    cyclopts.run(main)\n' in text
        (command,) = re.findall(
            rf"^ *python examples/{script.name}(.*)$", text.split('"""')[1], flags=re.MULTILINE
        )
        app = cyclopts.App()
        app.default(main_of(script, monkeypatch))
        app.parse_args(
            command.split(), exit_on_error=False, print_error=False
        )  # raises for a word it does not take
