"""A saved model: the policy that travels with it, and the library's own Auto classes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import offramp
from offramp._core.errors import CriterionError
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification

EXITS = [1, 2, 4]
TEXTS = ["a gripping film", "dull , dull , dull"]


def policy_of(criterion: str = "confidence", exits: tuple[int, ...] = (1, 2, 4)) -> Policy:
    return Policy(make_criterion(criterion, threshold=2 if criterion == "patience" else 0.7), exits)


@pytest.fixture
def model(tiny_encoder: Path) -> MultiExitForSequenceClassification:
    return MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS, labels=["no", "yes"])


def test_the_policy_travels_with_the_model(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "plain")
    assert offramp.load_model(tmp_path / "plain").policy is None
    model.save_pretrained(tmp_path / "a", policy=policy_of())
    loaded = offramp.load_model(tmp_path / "a")
    assert loaded.policy == policy_of()
    policy_of("patience").save(tmp_path / "a" / "policy-patience.json")  # tuned later, for another criterion
    assert offramp.load_model(tmp_path / "a").policy == policy_of()
    loaded.save_pretrained(tmp_path / "b")
    assert offramp.load_model(tmp_path / "b").policy == policy_of()


def test_the_policy_that_tune_wrote_is_found(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    policy_of("entropy").save(
        tmp_path / "policy-entropy.json"
    )  # beside the folder of the weights, in the run's
    assert offramp.load_model(tmp_path).policy == policy_of("entropy")
    policy_of().save(tmp_path / "model" / "policy-confidence.json")
    assert offramp.load_model(tmp_path).policy is None  # which of the two is meant is not known


def test_a_policy_of_another_model_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(CriterionError, match=r"the policy is for exits \[1, 4\]"):
        model.save_pretrained(tmp_path, policy=policy_of(exits=(1, 4)))
    model.save_pretrained(tmp_path)
    policy_of(exits=(1, 4)).save(tmp_path / "policy-confidence.json")
    with pytest.raises(CriterionError, match="tune it again"):
        offramp.load_model(tmp_path)


@pytest.mark.parametrize("first", ["offramp", "transformers", "transformers.models.auto.configuration_auto"])
def test_auto_classes_read_our_folders(first: str, model: Any, tmp_path: Path) -> None:
    """In a fresh process, whichever of the two packages is imported first."""
    model.save_pretrained(tmp_path)
    code = f"""
import {first}, sys
import offramp
assert "torch" not in sys.modules or {first!r} != "offramp"
from transformers import AutoConfig, AutoModelForSequenceClassification, pipeline
config = AutoConfig.from_pretrained({str(tmp_path)!r})
print(type(config).__name__, config.exits)
print(type(AutoModelForSequenceClassification.from_pretrained({str(tmp_path)!r})).__name__)
answers = pipeline("text-classification", model={str(tmp_path)!r}, device="cpu")({TEXTS!r})
print([answer["label"] for answer in answers], [round(answer["score"], 5) for answer in answers])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config, name, answers = done.stdout.strip().splitlines()
    assert config == f"MultiExitConfig {EXITS}"
    assert name == "MultiExitForSequenceClassification"
    probabilities = []
    for text in TEXTS:
        inputs = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            probabilities.append(model.eval()(**inputs).logits.softmax(-1)[0])
    labels = [model.labels[int(p.argmax())] for p in probabilities]
    assert answers == f"{labels} {[round(float(p.max()), 5) for p in probabilities]}"


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_pipeline_answers_with_the_last_exit(kind: str, tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, pipeline

    cascade = MultiModelForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2], kind=kind).eval()
    cascade.save_pretrained(tmp_path)
    assert isinstance(
        AutoModelForSequenceClassification.from_pretrained(tmp_path), MultiModelForSequenceClassification
    )
    answer = pipeline("text-classification", model=str(tmp_path), device="cpu")("a film")[0]  # type: ignore[call-overload]
    with torch.no_grad():
        output = cascade(**cascade.tokenizer("a film", return_tensors="pt"))
    assert torch.equal(output.logits, output.exit_logits[:, -1])
    expected = output.logits[0, 0] if kind == "regression" else output.logits.softmax(-1).max()
    assert answer["score"] == pytest.approx(float(expected), abs=1e-6)


def test_without_a_tokenizer_there_is_still_a_policy(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, policy=policy_of())
    shutil.copytree(tmp_path, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer_config.json").unlink()
    assert offramp.load_model(tmp_path / "copy").policy == policy_of()
