"""A recipe, a strategy and an exit rule, each added by one class and one entry, are used and classed correctly."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

import offramp
from offramp._core.trace import Evidence, Trace
from offramp.attacks.options import Options
from offramp.attacks.recipes import RECIPES
from offramp.attacks.recipes.base import Composition, Recipe
from offramp.attacks.recipes.random import RandomWords
from offramp.cli.main import run
from offramp.criteria import CRITERIA
from offramp.criteria.base import Criterion, Memory
from offramp.studies.attacks.plan import make_attack_plan
from offramp.studies.attacks.results import load_attacks
from offramp.studies.grid import run_grid
from offramp.studies.training.plan import make_sweep
from offramp.training.strategies import STRATEGIES
from offramp.training.strategies.base import Strategy
from tests.studies.trained_sweep import write_reviews


class FooExit(Recipe):
    """Its name ends as those of accuracy attacks do, but it is after late exits."""

    name, label = "foo-exit", "Foo"
    access = "exits"
    claim = 0.3

    def compose(self, victim: Any, options: Options) -> Composition:
        return RandomWords().compose(victim, options)


class Backwards(Strategy):
    """The loss of the last exit first."""

    name, label = "backwards", "Back-to-Front"
    claim = 4.5

    def losses(self, model: Any, inputs: Any, labels: Any, moment: Any) -> Any:
        from offramp.training.strategies.losses import exit_losses

        yield sum(reversed(exit_losses(model, inputs, labels)))


@dataclass(frozen=True)
class Centred(Criterion):
    """Leave where the largest logit is above its mean on calibration data by the threshold: the mean is fitted."""

    mean: float | None = None

    name: ClassVar[str] = "centred"
    label: ClassVar[str] = "Centred logit"
    default_threshold: ClassVar[float] = 0.0

    def fit(self, trace: Trace) -> Self:
        return replace(self, mean=float(trace.logits.max(-1).mean()))

    def rate(self, evidence: Evidence, memory: Memory) -> tuple[Any, Memory]:
        return np.asarray(evidence.logits, np.float64).max(-1) - (self.mean or 0.0), memory


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry each."""
    monkeypatch.setitem(RECIPES, "foo-exit", FooExit)
    monkeypatch.setitem(STRATEGIES, "backwards", Backwards)
    monkeypatch.setitem(CRITERIA, "centred", Centred)


def test_trained_tuned_and_attacked(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    model = offramp.MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2, 4], labels=2)
    offramp.train(
        model, tiny_data, "backwards", output_dir=tmp_path, max_steps=4, learning_rate=1e-3, progress=False
    )
    policy = offramp.tune(offramp.trace(model, tiny_data["calibration"]), "centred", max_cost=0.9)
    assert isinstance(policy.criterion, Centred)
    assert policy.criterion.mean is not None
    policy.save(tmp_path / "policy.json")
    assert offramp.Policy.load(tmp_path / "policy.json") == policy

    result = offramp.attack(
        model,
        tiny_data["validation"].select(range(4)),
        recipe="foo-exit",
        policy=policy,
        similarity="none",
        top_n=4,
        rounds=1,
        beam=1,
        progress=False,
    )
    assert result.to_pandas()["recipe"].tolist() == ["foo-exit"] * 4


def test_in_studies_and_their_tables(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    task = str(write_reviews(tmp_path / "reviews.csv", tiny_data))
    sweep = make_sweep(
        {
            "backbones": {str(tiny_encoder): [1, 2, 4]},
            "tasks": [task],
            "strategies": ["joint", "backwards"],
            "learning_rate": 1e-3,
            "training": {"max_steps": 4, "batch_size": 16},
            "criterion": "centred",
        }
    )
    assert run_grid(sweep, tmp_path / "models", keep_models=True) == {}
    assert run(["report", str(tmp_path / "models"), "--figures", "none"]) == 0
    report = (tmp_path / "models" / "report" / "report.md").read_text()
    assert "Back-to-Front − Early-Exit" in report
    assert "+4.5" in report  # the claim of its paper

    study = make_attack_plan(
        {
            "models": str(tmp_path / "models"),
            "tasks": [task],
            "strategies": ["joint", "backwards"],
            "criteria": ["centred", "confidence"],
            "recipes": ["foo-exit", "textfooler-exit", "random-word"],
            "options": {"top_n": 2, "beam": 1, "rounds": 1},
            "examples": 4,
            "similarity": "none",
            "max_accuracy_drop": 0.5,  # few calibration rows: with a smaller drop no text leaves early
        }
    )
    assert {trial.attack.recipe for trial in study.trials} == {"foo-exit", "textfooler-exit", "random-word"}
    trials = [trial for trial in study.trials if trial.attack.recipe != "textfooler-exit"]
    assert run_grid(replace(study, trials=tuple(trials)), tmp_path / "attacks") == {}
    attacks = load_attacks(tmp_path / "attacks")
    assert {attack.recipe for attack in attacks} == {FooExit, RandomWords}
    assert {attack.setting.criterion for attack in attacks} == {"centred", "confidence"}
    assert run(["report", str(tmp_path / "attacks"), "--figures", "none"]) == 0
    report = (tmp_path / "attacks" / "report" / "report.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if "foo-exit" in line
    ]
    assert rows[0][1:3] == ["foo-exit", "all"]
    assert rows[0][8] == "0.3"  # the claim of its paper, in the first table
    assert "foo-exit (accuracy)" not in report


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("attack", r"slowdown: [^;]*foo-exit[^;]*; accuracy attacks: [^;]*textfooler-exit"),
        ("train", r"backwards \(Back-to-Front\)"),
        ("tune", "centred"),
    ],
)
def test_in_the_help(command: str, names: str) -> None:
    # In a process of its own: help texts are made when a command is imported.
    code = (
        "from tests import test_toy_methods as toy; from offramp.cli.main import run\n"
        "toy.RECIPES['foo-exit'], toy.STRATEGIES['backwards'] = toy.FooExit, toy.Backwards\n"
        f"toy.CRITERIA['centred'] = toy.Centred; run([{command!r}, '--help'])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert re.search(names, " ".join(done.stdout.replace("│", " ").split())), done.stderr
