"""Whether data fit a model: one check, wherever the two meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

import offramp
from offramp._core.errors import DataError
from offramp.criteria import make_criterion
from offramp.data import TextData, check_fit, fitting_labels
from offramp.data.fitting import class_names

LABELS = ("negative", "positive")


@pytest.fixture
def data(tmp_path: Path) -> TextData:
    rows = [f"film number {i},{LABELS[i % 2]}" for i in range(40)]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    return offramp.load_data(tmp_path / "films.csv")


def test_splits_name_their_classes(data: TextData) -> None:
    cut = data.subsample(10).calibrated_on("validation")
    for split in (*data.values(), *cut.values()):
        assert class_names(split) == LABELS
    check_fit(data, LABELS, "classification")
    labels = fitting_labels(data["train"], LABELS, "classification")
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == data["train"]["label"]


def test_another_task_is_refused(data: TextData) -> None:
    for source in (data, data["train"]):
        with pytest.raises(
            DataError, match="has the labels 'positive', 'negative', but .* has 'negative', 'posi"
        ):
            check_fit(source, LABELS[::-1], "classification")
        with pytest.raises(DataError, match="runs/a is a regression model, but .* is a classification task"):
            check_fit(source, (), "regression", model="runs/a")
    many = [f"class {i}" for i in range(9)]
    with pytest.raises(DataError, match=r"'class 5' and 3 more, but films has"):
        check_fit(data, many, "classification")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([0, 2], "classification", r"expected class labels in 0\.\.1, got \[0, 2\]"),
        ([0, -1], "classification", r"class labels in 0\.\.1, got \[0, -1\]"),
        ([0.5, 1.0], "classification", r"class labels in 0\.\.1, got \[0\.5, 1\.0\]"),
        ([1.0, float("inf")], "regression", "expected finite numbers as labels"),
        (["a", "b"], "regression", "expected finite numbers as labels"),
    ],
)
def test_labels_that_do_not_fit(values: Any, kind: Any, message: str) -> None:
    rows = Dataset.from_dict({"text": ["a", "b"], "label": values})
    with pytest.raises(DataError, match=message):
        fitting_labels(rows, LABELS if kind == "classification" else (), kind)


def test_data_without_names_or_labels() -> None:
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 3]})
    scores = fitting_labels(rows, (), "regression")
    assert scores is not None
    assert scores.dtype == np.float32
    assert fitting_labels(rows.remove_columns("label"), LABELS, "classification") is None


def test_every_way_in_refuses_other_labels(data: TextData, tiny_encoder: Path, tmp_path: Path) -> None:
    model = offramp.MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [1, 2], labels=LABELS[::-1]
    ).eval()
    policy = offramp.Policy(make_criterion("confidence", threshold=0.7), (1, 2))
    with pytest.raises(DataError, match="in the same order"):
        offramp.trace(model, data["validation"])
    with pytest.raises(DataError, match="in the same order"):
        offramp.train(model, data, output_dir=tmp_path / "run")
    with pytest.raises(DataError, match="in the same order"):
        offramp.attack(model, data["validation"], recipe="random-word", policy=policy)
    assert not (tmp_path / "run").exists()


def test_labels_given_as_strings_are_matched_by_name() -> None:
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": ["positive", "negative", "positive"]})
    for labels, expected in ((LABELS, [1, 0, 1]), (LABELS[::-1], [0, 1, 0])):
        classes = fitting_labels(rows, labels, "classification")
        assert classes is not None
        assert classes.tolist() == expected
    with pytest.raises(DataError, match="unknown label 'positive'. Did you mean 'positives'"):
        fitting_labels(rows, ("negative", "positives"), "classification")


def test_another_order_of_the_classes_says_what_to_do_and_it_works(data: TextData) -> None:
    with pytest.raises(DataError, match=r"or give data.with_labels\(model.labels\)"):
        check_fit(data, LABELS[::-1], "classification")
    turned = data.with_labels(LABELS[::-1])
    check_fit(turned, LABELS[::-1], "classification")
    for split in data:
        assert turned[split]["text"] == data[split]["text"]
        assert turned[split]["label"] == [1 - label for label in data[split]["label"]]
    with pytest.raises(DataError, match="in any order"):
        data.with_labels(["negative", "other"])

    rows = data["train"]
    with pytest.raises(DataError, match="or give the labels as strings, which are matched by name"):
        fitting_labels(rows, LABELS[::-1], "classification")
    named = Dataset.from_dict({"text": rows["text"], "label": [LABELS[label] for label in rows["label"]]})
    classes = fitting_labels(named, LABELS[::-1], "classification")
    assert classes is not None
    assert classes.tolist() == turned["train"]["label"]


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (True, "trained on pairs of texts, but the .* has single texts: give the second texts too"),
        (False, "trained on single texts, but the .* has pairs: give one text each"),
    ],
)
def test_every_way_in_compares_pairs_with_single_texts(
    trained: bool, message: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    texts = ["a good film", "dull"] * 3
    columns = {
        True: {"text": texts, "text_pair": texts[::-1], "label": [0, 1] * 3},
        False: {"text": texts, "label": [0, 1] * 3},
    }
    rows = {pair: Dataset.from_dict(columns[pair]) for pair in columns}
    model = offramp.MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), [1, 2])
    assert model.pair is None
    offramp.trace(model, rows[True])
    offramp.trace(model, rows[False])
    model = offramp.train(
        model, {"train": rows[trained]}, "joint", max_steps=1, output_dir=tmp_path / "run", progress=False
    )
    policy = offramp.Policy(make_criterion("confidence", threshold=0.7), (1, 2))
    model.save_pretrained(tmp_path / "saved", policy=policy)
    loaded = offramp.load_model(tmp_path / "saved")
    assert loaded.pair is trained
    offramp.trace(loaded, rows[trained])
    with pytest.raises(DataError, match=message):
        offramp.trace(loaded, rows[not trained])
    with pytest.raises(DataError, match=message):
        offramp.train(loaded, {"train": rows[not trained]}, "joint", output_dir=tmp_path / "other")
    with pytest.raises(DataError, match=message):
        offramp.attack(loaded, rows[not trained], recipe="random-word")
    assert not (tmp_path / "other").exists()
    folders = ["saved"]
    if trained:  # an export takes seconds
        offramp.export(loaded, tmp_path / "exported", progress=False)
        folders.append("exported")
    for folder in folders:
        engine = offramp.Engine(tmp_path / folder)
        given, other = (("dull", "good"), ("dull", None))[:: 1 if trained else -1]
        assert engine.predict(*given).label in ("0", "1")
        assert len(engine.predict(rows[trained].remove_columns("label"))) == 6
        assert engine.predict([]) == []
        for ask in (engine.predict, engine.decide):
            with pytest.raises(DataError, match=message):
                ask([other[0]], other[1] and [other[1]])
        with pytest.raises(DataError, match=message):
            list(engine.stream(rows[not trained].remove_columns("label")))
