"""What an earlier version wrote is still read: one file of each kind, kept on disk as it was written.

`frozen` holds records, tables, traces, a policy, a model's config and an export's manifest of the version before the
rooms had their present names. Nobody edits them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import offramp
from offramp._core.errors import ConfigError
from offramp.cli.main import run
from offramp.engine.manifest import Manifest
from offramp.studies.attacks.results import load_attacks, load_transfers
from offramp.studies.training.results import load_results

FROZEN = Path(__file__).parent / "frozen"
KINDS = {"train", "evaluate", "attack", "bench"}


def report(folder: Path, output: Path) -> str:
    assert run(["report", str(folder), "--output", str(output), "--figures", "none"]) == 0
    return (output / "report.md").read_text(encoding="utf-8")


def test_records_of_every_command(tmp_path: Path) -> None:
    records = [json.loads(path.read_text()) for path in FROZEN.glob("runs/**/*.json")]
    words = {record["command"].split()[0] for record in records if record.get("record") == "offramp-run"}
    assert words >= KINDS
    text = report(FROZEN / "runs", tmp_path)
    names = (
        "exits",
        "areas",
        "comparison",
        "winners",
        "attacks",
        "bench",
        "bench-train",
        "bench-attack",
        "stream",
    )
    for name in (*names, "promises", "policies", "timing"):
        assert f'<a id="{name}"></a>' in text or f'-{name}"></a>' in text, name


def test_trials_of_a_training_study(tmp_path: Path) -> None:
    joint, multi = sorted(load_results(FROZEN / "sweep"), key=lambda result: result.method)
    assert (joint.setting.task, joint.setting.train_size, joint.seed, joint.strategy) == (
        "cola",
        2000,
        0,
        "joint",
    )
    assert joint.trace.logits.shape == multi.trace.logits.shape == (1043, 4, 2)
    assert joint.scores == pytest.approx((0.0176020, 0.0634259, 0.1188867, 0.1145201), abs=1e-6)
    assert multi.scores == pytest.approx((0.0, -0.0292921, 0.1383897, 0.0710019), abs=1e-6)
    assert "Multi-Model − Early-Exit" in report(FROZEN / "sweep", tmp_path)


def test_trials_of_an_attack_study(tmp_path: Path) -> None:
    (attack,) = load_attacks(FROZEN / "attacks")
    assert (attack.recipe.name, attack.setting.criterion, attack.seed) == ("same-plus", "confidence", 0)
    assert len(attack.rows) == 100
    assert load_transfers(FROZEN / "attacks").num_rows > 0
    assert "same-plus" in report(FROZEN / "attacks", tmp_path)


def test_a_policy_a_config_and_a_manifest() -> None:
    policy = offramp.Policy.load(FROZEN / "runs" / "joint" / "policy-confidence.json")
    assert (policy.criterion.name, policy.exit_layers) == ("confidence", (1, 2, 4, 6))
    assert policy.temperatures is not None
    config = offramp.MultiExitConfig.from_pretrained(FROZEN / "config.json")
    assert (list(config.exits), config.id2label) == ([1, 2], {0: "0", 1: "1"})
    content = json.loads((FROZEN / "manifest.json").read_text())
    manifest = Manifest.load(FROZEN)
    assert manifest.exit_layers == tuple(content["exit_layers"])
    assert manifest.labels == tuple(content["labels"])


def test_options_of_an_attack_are_read_under_their_present_names(
    tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    model = offramp.MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2], labels=2)
    folder = shutil.copytree(FROZEN / "attack", tmp_path / "attack")
    kept = offramp.AttackResult.load(folder)
    assert kept.metadata["options"]["lam"] == 0.5
    policy = offramp.Policy(offramp.make_criterion("confidence", 0.9), (1, 2))
    with pytest.raises(
        ConfigError, match="holds another attack.*preserve 'prediction' there, 'nothing' here"
    ):
        offramp.attack(
            model,
            tiny_data["validation"].select(range(4)),
            policy=policy,
            recipe="same-word",
            output_dir=folder,
            resume=True,
            similarity="none",
            rounds=2,
            top_n=4,
            disagreement_weight=0.5,
            max_changed_words=2,
            progress=False,
        )
