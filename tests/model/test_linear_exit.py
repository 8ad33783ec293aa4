"""Layer 0 as an exit of a model: trained, saved, traced, exported, pruned, attacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp._core.errors import ModelError
from offramp.attacks import attack
from offramp.criteria import make_criterion, scores
from offramp.engine.policy import Policy
from offramp.engine.pools import PoolingEngine
from offramp.engine.segment_times import guess_times
from offramp.exporting.run import export_model
from offramp.inference.engine import Engine
from offramp.inference.loading import load_model
from offramp.inference.segments import TorchSegments
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.encoding import TextEncoder
from offramp.model.prune_exits import prune_exits
from offramp.training.run import train, untrained_model
from offramp.training.strategies import STRATEGIES

EXITS = [0, 1, 3]
CLASSES = {"joint": MultiExitForSequenceClassification, "multi_model": MultiModelForSequenceClassification}


@pytest.fixture(scope="module")
def trained(tiny_encoder: Path, tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    models = {}
    for strategy, cls in CLASSES.items():
        model = cls.from_backbone(str(tiny_encoder), EXITS, labels=["no", "yes"], max_length=24, gates=True)
        folder = tmp_path_factory.mktemp(strategy)
        models[strategy] = train(model, tiny_data, strategy, output_dir=folder, max_steps=12, progress=False)
    return models


@pytest.fixture(params=list(CLASSES))
def model(request: pytest.FixtureRequest, trained: dict[str, Any]) -> Any:
    return trained[request.param]


def split_policy(model: Any, data: Any, rule: str = "confidence") -> Policy:
    """A policy under which a share of the texts leaves at layer 0, and some go to the end."""
    run = trace(model, data)
    if rule == "patience":
        return Policy(make_criterion("patience", 1), model.exit_layers)
    middle = float(np.median(scores(make_criterion(rule), run)[:, 0]))
    return Policy(make_criterion(rule, middle), model.exit_layers, (1.0, 1.1, 0.9))


def test_it_answers_well_and_costs_next_to_nothing(model: Any, tiny_data: Any) -> None:
    run = trace(model, tiny_data["validation"])
    right = (run.predictions() == run.require_labels()[:, None]).mean(axis=0)
    assert right[0] > 0.9  # one word tells the class
    assert (run.flops[:, 0] < 0.01 * run.full_flops).all()
    assert (run.flops[:, 0] > 0).all()
    np.testing.assert_allclose(
        run.gates[:, 0], np.exp(run.logits[:, 0]).max(1) / np.exp(run.logits[:, 0]).sum(1), rtol=1e-3
    )


def test_the_other_exits_are_those_of_a_model_without_it(trained: dict[str, Any], tiny_data: Any) -> None:
    for model in trained.values():
        whole, smaller = trace(model, tiny_data["validation"]), prune_exits(model, EXITS[1:])
        assert smaller.linear is None
        rest = trace(smaller, tiny_data["validation"])
        np.testing.assert_allclose(whole.logits[:, 1:], rest.logits, atol=1e-6)
        assert (whole.full_flops == rest.full_flops).all()
        kept = prune_exits(model, [0, 3])
        np.testing.assert_allclose(
            trace(kept, tiny_data["validation"]).logits[:, 0], whole.logits[:, 0], atol=1e-6
        )


def test_it_survives_saving(model: Any, tiny_data: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, policy=split_policy(model, tiny_data["validation"]))
    loaded = load_model(str(tmp_path))
    before, after = (trace(m, tiny_data["validation"]) for m in (model, loaded))
    assert (before.logits == after.logits).all()
    assert (before.flops == after.flops).all()


@pytest.mark.parametrize("rule", ["confidence", "patience", "learned", "cap"])
def test_engines_decide_as_the_trace_does(model: Any, tiny_data: Any, rule: str) -> None:
    validation = tiny_data["validation"]
    policy = split_policy(model, validation, rule)
    expected = policy.decide(trace(model, validation))
    if rule != "patience":
        assert 0 < (expected.layer == 0).mean() < 1
    for batch_size in (1, 5, 32):
        decisions = Engine(model, policy, batch_size=batch_size).decide(validation)
        assert (decisions.exit == expected.exit).all()
        assert (decisions.prediction == expected.prediction).all()
        np.testing.assert_allclose(decisions.flops, expected.flops)
    segments = TorchSegments(model, residuals=rule == "cap")
    encodings = TextEncoder.of(model).dataset(validation)[0]
    pooled = PoolingEngine(segments, policy, guess_times(segments), batch_size=4).run(encodings)
    assert (pooled.exit == expected.exit).all()


def test_an_export_answers_without_torch_as_the_model_does(
    model: Any, tiny_data: Any, tmp_path: Path
) -> None:
    validation = tiny_data["validation"]
    policy = split_policy(model, validation)
    export_model(model, tmp_path / "x", policy=policy)
    engine, expected = Engine(tmp_path / "x"), policy.decide(trace(model, validation))
    assert (engine.decide(validation).exit == expected.exit).all()
    for text, layer, label in zip(validation["text"], expected.layer, expected.prediction, strict=True):
        answer = engine.predict(text)  # the fused graph, after layer 0
        assert (answer.exit_layer, answer.label) == (layer, model.labels[label])
    check_attacks(engine, model, policy, validation.select(range(12)))
    (tmp_path / "x" / "layer-0.npz").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="sha256 differs"):
        Engine(tmp_path / "x")


def check_attacks(engine: Engine, model: Any, policy: Policy, data: Any) -> None:
    """An attacker from outside sees the exits that the model takes."""
    settings: dict[str, Any] = {"recipe": "random-char", "similarity": "none", "progress": False}
    black, white = attack(engine, data, **settings), attack(model, data, policy=policy, **settings)
    columns = ["adversarial_text", "clean_layer", "adversarial_layer", "forward_queries"]
    assert black.table.select(columns).equals(white.table.select(columns))
    assert sum(black.table["success"].to_pylist()) > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_the_exits_behind_it(
    strategy: str, tiny_encoder: Path, tiny_data: Any, tmp_path: Path
) -> None:
    from offramp.data.text_data import TextData

    data = TextData("tiny", dict(tiny_data), ("no", "yes"), "classification", False, ("accuracy",))
    model = untrained_model(strategy, str(tiny_encoder), EXITS, data, max_length=24)
    before = {name: value.clone() for name, value in model.named_parameters()}
    train(model, data, strategy, output_dir=tmp_path, max_steps=3, progress=False)
    assert model.exit_layers == tuple(EXITS)
    assert len(model.linear.stage.ngrams) > 0
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())


def test_a_finished_run_loads_its_stage(tiny_encoder: Path, tiny_data: Any, tmp_path: Path) -> None:
    def run() -> Any:
        model = MultiExitForSequenceClassification.from_backbone(
            str(tiny_encoder), EXITS, labels=["no", "yes"]
        )
        return train(model, tiny_data, "joint", output_dir=tmp_path, max_steps=2, progress=False)

    first, again = run(), run()
    assert (
        trace(first, tiny_data["validation"]).logits == trace(again, tiny_data["validation"]).logits
    ).all()


def test_gradients_of_token_embeddings_lead_through_it(model: Any, tiny_data: Any) -> None:
    """The first-order estimate of a replacement is the change of the logits where norm and bigrams stay."""
    model.eval()
    encoding = TextEncoder.of(model)(["good film"])[0]
    ids = torch.tensor([encoding["input_ids"]])
    tables = model.embedding_tables()
    embeds = [table(ids).requires_grad_() for table in tables]
    output = model(input_ids=ids, inputs_embeds=embeds)
    plain = model(input_ids=ids)
    torch.testing.assert_close(output.exit_logits, plain.exit_logits, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(output.exit_logits[0, 0, 1], embeds[-1])
    good, bad = (model.tokenizer.convert_tokens_to_ids(word) for word in ("good", "bad"))
    table = tables[-1].weight
    estimate = float(gradient[0, 1] @ (table[bad] - table[good]))
    assert estimate < 0  # the word that tells "no" lowers the logit of "yes"


def test_layers_of_the_encoder_are_needed(tiny_encoder: Path) -> None:
    with pytest.raises(ModelError, match=r"layer 0 is an exit before the encoder: add at least one layer"):
        MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [0])


def test_before_training_no_text_leaves_there(tiny_encoder: Path, tiny_data: Any) -> None:
    model = MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), EXITS, labels=["no", "yes"]
    ).eval()
    assert (trace(model, tiny_data["validation"]).logits[:, 0] == 0).all()


def test_files_from_before_layer_0_are_read(tiny_encoder: Path, tmp_path: Path) -> None:
    model = MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 3], labels=["no", "yes"])
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["linear_sizes"]
    path.write_text(json.dumps(content), encoding="utf-8")
    loaded = load_model(str(tmp_path))
    assert loaded.linear is None
    assert loaded.exit_layers == (1, 3)
