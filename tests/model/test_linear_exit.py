"""Layer 0 as an exit of a model: trained, saved, traced, exported, pruned, attacked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ModelError
from offramp.attacks import attack
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.criteria import make_criterion, scores
from offramp.engine.agreement import check_agreement, run_reference
from offramp.engine.onnx import OnnxSegments
from offramp.engine.onnx_engine import FusedGraph
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
from tests.conftest import WORDS

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
    lax, segments, texts = Engine(tmp_path / "x", LAX), OnnxSegments(tmp_path / "x"), ["漢字", "", "good"]
    assert lax.decide(texts).layer.tolist() == [1, 1, 0]
    fused = FusedGraph(tmp_path / "x", segments.manifest, LAX, linear=segments.linear)
    assert [fused(encoding).exit for encoding in lax.encode(texts)] == [1, 1, 0]
    (tmp_path / "x" / "layer-0.npz").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="sha256 differs"):
        Engine(tmp_path / "x")


@settings(max_examples=20, deadline=None)
@given(strange=st.lists(st.text("漢字☃ЖzΩ 9", max_size=6), min_size=1, max_size=4))
def test_texts_of_unknown_tokens_go_on_to_the_first_layer(
    lax_engines: list[Engine], tiny_data: Any, strange: list[str]
) -> None:
    """Under the laxest threshold, every text that layer 0 recognises leaves there, and no other."""
    texts = [*strange, "a good film", "", *tiny_data["validation"]["text"][:2]]
    expected = [1] * len(strange) + [0, 1, 0, 0]
    for engine in lax_engines:
        assert [answer.exit_layer for answer in engine.predict(texts)] == expected
        capped = engine.compacting.run(engine.encode(texts), caps=np.zeros(len(texts), dtype=np.intp))
        assert (capped.layer == 0).all()  # a cap is kept all the same
        np.testing.assert_allclose(capped.probability[: len(strange)], 0.5)


LAX = Policy(make_criterion("confidence", 0.0), tuple(EXITS))


@pytest.fixture(scope="module")
def lax_engines(trained: dict[str, Any]) -> list[Engine]:
    return [Engine(model, LAX, batch_size=3) for model in trained.values()]


@pytest.mark.parametrize("rule", ["confidence", "patience", "vote", "learned", "energy"])
def test_engines_and_attacks_decide_on_unknown_texts_as_the_trace_does(
    trained: dict[str, Any], tiny_data: Any, rule: str
) -> None:
    model, rows = trained["joint"], tiny_data["validation"]
    texts = ["漢字", "", "z ☃", *rows["text"][:9]]
    mixed = Dataset.from_dict({"text": texts, "label": [0, 1, 0, *rows["label"][:9]]})
    run = trace(model, mixed)
    assert (run.logits[:3, 0] == 0).all()
    table = scores(make_criterion(rule), run)
    threshold = 1 if rule == "patience" else float(np.median(table[3:, 0]))
    for recall in (False, True):
        policy = Policy(make_criterion(rule, threshold), model.exit_layers, (1.0, 0.8, 1.2), recall=recall)
        expected = policy.decide(run)
        assert (expected.exit[:3] > 0).all()
        assert check_agreement(Engine(model, policy, batch_size=5).decide(mixed), run, policy).holds
        reference = run_reference(TorchSegments(model), policy, TextEncoder.of(model).dataset(mixed)[0])
        assert check_agreement(reference, run, policy).holds
        answers = WhiteBoxVictim(model, policy).run([(text,) for text in texts])
        assert [answer.exit for answer in answers] == expected.exit.tolist()


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


@pytest.mark.parametrize("strategy", CLASSES)
def test_pairs_are_compared_wherever_the_model_runs(
    strategy: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    """The label says whether the second text has the words of the first: no n-gram can tell."""
    random = np.random.default_rng(0)
    splits = {}
    for split, size in {"train": 120, "validation": 40}.items():
        rows = []
        for i in range(size):
            first, rest = np.split(random.permutation(WORDS[:16]), [5])
            second = random.permutation(first) if i % 2 else rest[:5]
            rows.append({"id": i, "text": " ".join(first), "text_pair": " ".join(second), "label": i % 2})
        splits[split] = Dataset.from_list(rows)
    model = CLASSES[strategy].from_backbone(str(tiny_encoder), EXITS, labels=["no", "yes"])
    model = train(model, splits, strategy, output_dir=tmp_path / "run", max_steps=2, progress=False)
    validation = splits["validation"]
    whole = trace(model, validation)
    assert (whole.predictions()[:, 0] == whole.require_labels()).mean() > 0.9
    model.save_pretrained(tmp_path / "saved")
    loaded = load_model(str(tmp_path / "saved"))
    assert loaded.linear.stage.reads_pairs
    np.testing.assert_array_equal(trace(loaded, validation).logits, whole.logits)
    kept = trace(prune_exits(model, [0, 3]), validation)
    np.testing.assert_allclose(kept.logits[:, 0], whole.logits[:, 0], atol=1e-6)
    policy = split_policy(model, validation)
    export_model(model, tmp_path / "x", policy=policy)
    decisions, expected = Engine(tmp_path / "x").decide(validation), policy.decide(whole)
    assert (decisions.exit == expected.exit).all()
    np.testing.assert_allclose(decisions.flops, expected.flops)
    some = validation.select(range(4))
    assert attack(Engine(tmp_path / "x"), some, recipe="random-char", rounds=1).table.num_rows == 4
    white_box = attack(loaded, some, recipe="same-word", policy=policy, rounds=1)
    assert sum(white_box.table["gradient_queries"].to_pylist()) > 0


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
