"""The layer-by-layer engine gives what the trace gives: on real torch models, at every batch size and order."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from offramp._core.environment import can_compile
from offramp._core.errors import ConfigError, CriterionError, DataError
from offramp.criteria import make_criterion, scores
from offramp.engine.agreement import check_agreement, run_reference
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.inference.segments import TorchSegments
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification, MultiModelForSequenceClassification
from offramp.model.encoding import TextEncoder
from tests.backbones.backbone_zoo import ZOO, make, save

RULES = ("confidence", "entropy", "margin", "patience", "vote", "learned", "energy", "cap")


@pytest.fixture(scope="module", params=["multi_exit", "cascade"])
def model(request: pytest.FixtureRequest, tiny_encoder: Path) -> Any:
    cls = (
        MultiExitForSequenceClassification
        if request.param == "multi_exit"
        else MultiModelForSequenceClassification
    )
    return cls.from_backbone(str(tiny_encoder), [1, 2, 3, 4], labels=["no", "yes"], gates=True).eval()


@pytest.fixture(scope="module")
def texts(tiny_data: Any) -> Any:
    return tiny_data["validation"]


@pytest.mark.parametrize("rule", RULES)
def test_engine_gives_what_the_trace_gives(rule: str, model: Any, texts: Any) -> None:
    run = trace(model, texts)
    criterion = make_criterion(rule, 2) if rule == "patience" else make_criterion(rule)
    if rule != "patience":  # a threshold that splits the examples, between two scores
        ordered = np.unique(scores(criterion, run)[:, 0])
        criterion = make_criterion(rule, float(ordered[len(ordered) // 2 : len(ordered) // 2 + 2].mean()))
    policy = Policy(criterion, model.exit_layers, temperatures=(1.0, 1.1, 0.9, 1.2))
    rows = np.random.default_rng(0).permutation(len(texts))
    encoder = TextEncoder.of(model)
    reference = run_reference(
        TorchSegments(model, residuals=rule == "cap"), policy, encoder.dataset(texts)[0]
    )
    assert len(np.unique(reference.exit)) > 1
    assert check_agreement(reference, run, policy).holds
    for batch_size in (1, 7, 64):
        engine = Engine(model, policy, batch_size=batch_size)
        assert check_agreement(engine.decide(texts["text"]), run, policy).holds
        shuffled = engine.decide([texts["text"][i] for i in rows])
        assert check_agreement(shuffled, run.take(rows), policy).holds


def test_trace_does_not_depend_on_batches_or_order(model: Any, texts: Any) -> None:
    one, many = trace(model, texts, batch_size=1), trace(model, texts, batch_size=64)
    np.testing.assert_allclose(one.logits, many.logits, atol=1e-5)
    assert one.fingerprint == many.fingerprint
    rows = np.random.default_rng(1).permutation(len(texts))
    turned = trace(model, texts.select(rows.tolist()))
    np.testing.assert_allclose(turned.logits, many.logits[rows], atol=1e-5)
    np.testing.assert_array_equal(turned.labels, many.labels[rows])


def test_trace_equals_the_models_own_forward(model: Any, texts: Any) -> None:
    run = trace(model, texts)
    inputs = model.tokenizer(list(texts["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    np.testing.assert_allclose(run.logits, output.exit_logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(run.gates, output.gates.numpy(), atol=1e-5)
    lengths = inputs["attention_mask"].sum(1).numpy()
    np.testing.assert_array_equal(run.flops, model.flops(lengths)[0])


def test_predictions_speak_the_users_language(model: Any) -> None:
    engine = Engine(model, Policy(make_criterion("confidence", 0.5), model.exit_layers))
    first, second = engine.predict(["a good film", "a bad film"])
    assert first.label in ("no", "yes")
    assert 0.5 <= (first.probability or 0) <= 1
    assert first.exit_layer == second.exit_layer == 1  # confidence of two classes is at least a half
    assert 0 < first.cost < 0.3
    assert engine.predict([]) == []
    assert len(engine.predict(["", "\ud800", "a\x00b", "good " * 5000])) == 4
    assert len(engine.predict(["a film"], ["a plot"])) == 1


def test_every_form_of_texts_has_the_same_answers(model: Any) -> None:
    engine = Engine(model, Policy(make_criterion("confidence", 0.6), model.exit_layers))
    texts, pairs = ["a good film", "a bad film", ""], ["a plot", "no plot", "a"]
    alone, paired = engine.predict(texts), engine.predict(texts, pairs)
    # The probability of a text depends on its batch mates by float noise alone.
    for single, expected in (
        (engine.predict(texts[0]), alone[0]),
        (engine.predict(texts[0], pairs[0]), paired[0]),
    ):
        assert replace(single, probability=0.0) == replace(expected, probability=0.0)
        assert single.probability == pytest.approx(expected.probability, abs=1e-6)
    rows = [{"label": 0, "text": text, "text_pair": pair} for text, pair in zip(texts, pairs, strict=True)]
    only = [{"text": text} for text in texts]
    pandas = pytest.importorskip("pandas")
    for one_text, two_texts in (
        (only, rows),
        (Dataset.from_list(only), Dataset.from_list(rows)),
        (pandas.DataFrame(only), pandas.DataFrame(rows)),
        (tuple(texts), list(zip(texts, pairs, strict=True))),
        (np.array(texts), [list(pair) for pair in zip(texts, pairs, strict=True)]),
    ):
        assert engine.predict(one_text) == list(engine.stream(one_text)) == alone
        assert engine.predict(two_texts) == list(engine.stream(two_texts)) == paired
        assert engine.decide(two_texts).exit.tolist() == engine.decide(texts, pairs).exit.tolist()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            [{"sentence": "a"}],
            r"expected the columns 'text' and, for pairs, 'text_pair', got 'sentence': rename",
        ),
        ([{"text": "a", "text_pair": "b"}, {"text": "a"}], "expected the columns 'text' and"),
        ([{"text": "a"}, "b"], "expected rows with a column 'text' alone, got 'b' among them"),
        (["a", {"text": "b"}], "expected rows with a column 'text' alone, got 'a' among them"),
        ({"text": "a"}, "expected a list of values under 'text', got str: 'a': put a single row in a list"),
        ([{"text": float("nan")}], "expected texts as strings, got float: nan"),
        ([("a", "b"), "c"], "expected texts, or pairs of texts alone, got 'c' among them"),
        ([("a", "b", "c")], "pairs of texts alone"),
        ({"text": ["a"], "text_pair": []}, "expected columns of one length"),
        (3, "expected a list of texts, got int"),
        ([3], "expected texts as strings, got int"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(model: Any, source: Any, message: str) -> None:
    engine = Engine(model, Policy(make_criterion("confidence", 0.6), model.exit_layers))
    for run in (engine.predict, engine.decide, lambda texts: list(engine.stream(texts))):
        with pytest.raises(DataError, match=message) as caught:
            run(source)
        assert "\n" not in str(caught.value)


def test_a_stream_keeps_the_order_in_bounded_memory(model: Any) -> None:
    texts = ["film " * (1 + i % 5) for i in range(80)]
    engine = Engine(model, Policy(make_criterion("confidence", 0.6), model.exit_layers), batch_size=2)
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for text in texts:
            read += 1
            yield text

    answers = engine.stream(source())
    first = next(answers)
    assert read == 32, "no more is read than one window"
    assert engine.compacting.stats.batches == 16
    streamed, expected = [first, *answers], Engine(model, engine.compacting.policy).predict(texts)
    assert [replace(answer, probability=0.0) for answer in streamed] == [
        replace(answer, probability=0.0) for answer in expected
    ]
    assert list(engine.stream(iter([]))) == []


def test_second_texts_must_fit(model: Any) -> None:
    engine = Engine(model, Policy(make_criterion("confidence", 0.6), model.exit_layers))
    with pytest.raises(DataError, match="got 2 texts and 1 pairs"):
        engine.predict(["a", "b"], ["c"])
    with pytest.raises(DataError, match="got one string"):
        engine.predict(["a"], "b")
    with pytest.raises(DataError, match="got one string"):
        list(engine.stream("a"))


def test_a_folder_brings_its_policy(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="the engine needs a policy: tune one"):
        Engine(tmp_path)
    policy = Policy(make_criterion("confidence", 0.6), model.exit_layers)
    policy.save(tmp_path / "policy-confidence.json")
    assert Engine(tmp_path).compacting.policy == policy


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the library's own use of it
@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler")
def test_compiled_layers_give_the_same_answers(model: Any, texts: Any) -> None:
    run = trace(model, texts)
    middle = float(np.median(scores(make_criterion("confidence"), run)[:, 0]))
    policy = Policy(make_criterion("confidence", middle + 1e-4), model.exit_layers)
    own = deepcopy(model)  # layers are compiled in place
    for batch_size in (1, 64):  # torch compiles for one row apart
        engine = Engine(own, policy, backend="torch-compiled", batch_size=batch_size)
        assert check_agreement(engine.decide(texts["text"]), run, policy).holds


def test_compiling_needs_a_compiler(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.inference.segments.can_compile", lambda: False)
    with pytest.raises(ConfigError, match=r"install g\+\+, or use backend='torch'"):
        Engine(model, Policy(make_criterion("confidence", 0.5), model.exit_layers), backend="torch-compiled")


def test_misuse(model: Any, texts: Any, tmp_path: Path) -> None:
    with pytest.raises(CriterionError, match="tune it again"):
        Engine(model, Policy(make_criterion("confidence", 0.5), (1, 4)))
    with pytest.raises(ConfigError, match="unknown backend 'torhc'. Did you mean 'torch'"):
        Engine(model, Policy(make_criterion("confidence", 0.5), model.exit_layers), backend="torhc")
    with pytest.raises(CriterionError, match="no policy at"):
        Engine(model, tmp_path / "none.json")
    with pytest.raises(DataError, match="is empty"):
        trace(model, texts.select([]))
    with pytest.raises(DataError, match="expected a column 'text'"):
        trace(model, Dataset.from_dict({"sentence": ["a"]}))
    with pytest.raises(DataError, match=r"0\.\.1, got \[5\]"):
        trace(model, Dataset.from_dict({"text": ["a"], "label": [5]}))


def test_unlabelled_data_has_a_trace_without_labels(model: Any) -> None:
    run = trace(model, Dataset.from_dict({"text": ["a film", "good " * 500]}))
    assert run.labels is None
    assert run.truncated == 1


@pytest.mark.parametrize("name", ZOO)
def test_batch_mates_change_nothing_in_any_architecture(name: str, texts: Any, tmp_path: Path) -> None:
    encoder = save(make(name), tmp_path / "encoder")
    model = MultiExitForSequenceClassification.from_backbone(str(encoder), [1, 3], max_length=16).eval()
    texts = texts.select(range(20))
    one, many = trace(model, texts, batch_size=1), trace(model, texts, batch_size=64)
    np.testing.assert_allclose(one.logits, many.logits, atol=1e-4)
    policy = Policy(
        make_criterion("confidence", float(np.median(scores(make_criterion("confidence"), many)))), (1, 3)
    )
    for options in ({"batch_size": 1}, {"batch_size": 64}, {"batch_size": 8, "pools": True}):
        assert check_agreement(Engine(model, policy, **options).decide(texts["text"]), one, policy).holds
