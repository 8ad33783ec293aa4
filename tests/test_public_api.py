"""The library as a new user calls it: one model on its whole way, every form of input, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

import offramp
from offramp._core.errors import DataError
from offramp.training.gradient_conflict.measure import measure_products
from tests.studies.trained_sweep import write_reviews

FAST: dict[str, Any] = {"similarity": "none", "top_n": 4, "rounds": 1, "beam": 1, "progress": False}
TEXTS = ["a good film", "the dull story"]


@pytest.fixture(scope="module")
def data(tiny_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return offramp.load_data(write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv", tiny_data))


@pytest.fixture(scope="module")
def folder(data: Any, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained, tuned and saved with its policy, and its export in `exported`."""
    root = tmp_path_factory.mktemp("api")
    model = offramp.MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), exits=[1, 2, 4], labels=data.labels
    )
    offramp.train(
        model, data, strategy="sweet", seed=0, output_dir=root / "run", max_steps=30, progress=False
    )
    policy = offramp.tune(model, data, max_accuracy_drop=0.05, progress=False)
    model.save_pretrained(root / "served", policy=policy)
    assert offramp.load_model(root / "served").policy == policy
    offramp.export(root / "served", root / "exported", precision="int8", data=data, progress=False)
    return root


@pytest.mark.parametrize("name", ["served", "exported"])
def test_a_folder_is_all_that_an_engine_needs(name: str, folder: Path) -> None:
    engine = offramp.Engine(folder / name)
    first = engine.predict(TEXTS[0])
    assert (first.label in ("0", "1"), first.exit_layer in (1, 2, 4), 0 < first.cost < 1.01) == (True,) * 3
    expected = [(answer.label, answer.exit_layer) for answer in engine.predict(TEXTS)]
    assert expected[0] == (first.label, first.exit_layer)
    frame = pd.DataFrame({"text": TEXTS, "stars": [1, 2]}, index=[7, 3])
    for form in (
        tuple(TEXTS),
        np.array(TEXTS),
        pd.Series(TEXTS),
        frame,
        Dataset.from_pandas(frame),
        [{"text": text} for text in TEXTS],
        (text for text in TEXTS),
    ):
        assert [(answer.label, answer.exit_layer) for answer in engine.predict(form)] == expected
    assert [(answer.label, answer.exit_layer) for answer in engine.stream(iter(TEXTS))] == expected
    assert engine.predict([]) == []
    for wrong in ({"review": TEXTS}, pd.DataFrame({"review": TEXTS}), None, 5, [None], [["a", "b", "c"]]):
        with pytest.raises(DataError, match="expected"):
            engine.predict(wrong)


def test_measured_and_attacked(folder: Path, data: Any) -> None:
    model = offramp.load_model(folder / "served")
    trace = offramp.trace(model, data["validation"])
    curve = offramp.speed_accuracy(trace, "confidence")
    assert {"cost", "score"} <= set(curve.to_pandas().columns)
    both = offramp.evaluate({"tuned": model, "again": model}, data)
    assert set(both.scores.to_pandas()["method"]) == {"tuned", "again"}
    per_exit = both.per_exit.to_pandas()
    assert per_exit.value_counts("metric").to_dict() == {"accuracy": 6, "auroc": 6}
    assert len(repr(both)) < 100
    some = data["validation"].select(range(4))
    for target in (model, folder / "served", offramp.Engine(model, model.policy)):
        result = offramp.attack(target, some, recipe="same-word", **FAST)
        assert len(result.to_pandas()) == result.summary()["examples"] == 4
    for target in (folder / "exported", offramp.Engine(folder / "exported")):
        assert len(offramp.attack(target, some, recipe="random-char", **FAST)) == 4
        with pytest.raises(offramp.OfframpError, match="GreyBox"):
            offramp.attack(target, some, recipe="same-word", **FAST)


def test_one_split_and_all_splits_are_told_apart(folder: Path, data: Any, tmp_path: Path) -> None:
    model = offramp.load_model(folder / "served")
    for call in (lambda: offramp.trace(model, data), lambda: offramp.attack(model, data, **FAST)):
        with pytest.raises(
            DataError, match=r"expected one split, got data with the splits train, .*pass one"
        ):
            call()
    split = data["train"]
    for call in (
        lambda: offramp.train(model, split, output_dir=tmp_path / "run"),
        lambda: offramp.tune(model, split),
        lambda: offramp.evaluate(model, split),
    ):
        with pytest.raises(
            DataError, match="expected data with splits, as load_data returns them, got Dataset"
        ):
            call()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "source",
    [
        None,
        "reviews.csv",
        TEXTS,
        pd.DataFrame({"text": TEXTS, "label": [0, 1]}),
        {"text": TEXTS, "label": [0, 1]},
        [{"text": text, "label": 0} for text in TEXTS],
        Dataset.from_dict({"text": TEXTS, "label": [0, 1]}).to_iterable_dataset(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_other_data_are_refused_with_the_way_to_load_them(source: Any, folder: Path, tmp_path: Path) -> None:
    model = offramp.load_model(folder / "served")
    for call in (
        lambda: offramp.trace(model, source),
        lambda: offramp.attack(model, source, **FAST),
        lambda: measure_products(model, source),
        lambda: offramp.train(model, source, output_dir=tmp_path / "run"),
        lambda: offramp.tune(model, source),
        lambda: offramp.evaluate(model, source),
    ):
        with pytest.raises(
            DataError, match=r"^expected .*, got .*: load the data with offramp\.load_data, and pass"
        ):
            call()
    if source is not None:
        with pytest.raises(DataError, match="load the data with"):
            offramp.export(model, tmp_path / "exported", data=source, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_missing_split_and_labels_that_are_names(folder: Path, data: Any, tmp_path: Path) -> None:
    model = offramp.load_model(folder / "served")
    held = {"validation": data["validation"]}
    with pytest.raises(DataError, match="unknown split 'train'"):
        offramp.train(model, held, output_dir=tmp_path / "run")
    with pytest.raises(DataError, match="unknown split 'calibration'"):
        offramp.tune(model, held)
    named = Dataset.from_dict({"text": TEXTS, "label": ["no", "yes"]})
    with pytest.raises(DataError, match="unknown label 'no'. Known: 0, 1"):
        offramp.trace(model, named)


def test_the_format_of_a_split_plays_no_role(folder: Path, data: Any) -> None:
    model = offramp.load_model(folder / "served")
    some = data["validation"].select(range(4))
    expected = offramp.trace(model, some)
    for name in ("arrow", "pandas", "torch"):
        trace = offramp.trace(model, some.with_format(name))
        assert (trace.logits == expected.logits).all()
        assert (trace.labels == expected.labels).all()
    result = offramp.attack(model, some.with_format("arrow"), recipe="random-char", **FAST)
    assert result.to_pandas()["text"].tolist() == list(some["text"])


@pytest.mark.parametrize("order", ["import offramp, transformers", "import transformers, offramp"])
def test_the_library_loads_the_folder_as_its_own(order: str, folder: Path) -> None:
    code = f"""
{order}
import torch
folder = {str(folder / "served")!r}
model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
tokens = transformers.AutoTokenizer.from_pretrained(folder)({TEXTS!r}, return_tensors="pt", padding=True)
with torch.no_grad():
    output = model(**tokens)
assert output.logits.shape == (2, 2)
assert torch.equal(output.logits, output.exit_logits[:, -1])
answers = transformers.pipeline("text-classification", model=folder)({TEXTS!r})
for answer, probabilities in zip(answers, output.logits.softmax(-1)):
    assert answer["label"] == model.config.id2label[int(probabilities.argmax())]
    assert abs(answer["score"] - float(probabilities.max())) < 1e-4
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]


@pytest.mark.parametrize("name", ["served", "exported"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, got '8'"),
        ({"threads": "2"}, "threads must be a whole number of at least 1, got '2'"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"backend": "onxx"}, "unknown backend 'onxx'. Did you mean 'onnx'"),
        ({"pools": "yes"}, "pools must be True or False, got 'yes'"),
        ({"policy": 3}, "expected a Policy or its file as policy, got 3"),
        ({"device": "cdua"}, "device 'cdua'"),
        ({"device": 0}, "device"),
    ],
)
def test_what_no_engine_can_be_made_with(
    name: str, arguments: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(offramp.OfframpError, match=message):
        offramp.Engine(folder / name, **arguments)


def test_a_loaded_model_stays_where_it_is(folder: Path) -> None:
    model = offramp.load_model(folder / "served")
    with pytest.raises(offramp.OfframpError, match=r"call model.to\('cuda'\) first"):
        offramp.Engine(model, device="cuda")
    answer = offramp.Engine(model, batch_size=np.int64(4), threads=np.int32(1)).predict(TEXTS)
    assert answer == offramp.Engine(model).predict(TEXTS)
