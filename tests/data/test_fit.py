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
