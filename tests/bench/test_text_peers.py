"""Baselines that read words: what they learn from, when they pass a text on, and what that costs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from offramp._core.errors import ConfigError, DataError
from offramp.bench.baselines import Baseline, BenchArtifacts, find_baselines, int8_graph
from offramp.bench.measures import FlopShares
from offramp.bench.speed import BenchConfig, check_baselines
from offramp.bench.text_peers import (
    TextPeer,
    columns,
    fit_classifier,
    least_threshold,
    read_text_peer,
    save_text_peers,
    text_peers,
    training_rows,
    tune_cascades,
)
from offramp.data import row_hashes


def made(**changes: Any) -> Any:
    """What the baselines read of a model."""
    return SimpleNamespace(
        **{"labels": ("no", "yes"), "kind": "classification", "pair": None, "trained_on": None} | changes
    )


@pytest.fixture(scope="module")
def classifier(tiny_data: Any) -> Any:
    return fit_classifier(*training_rows(tiny_data["train"], made(), "tiny"), "classification")


def test_they_learn_from_the_rows_of_the_model_alone(tiny_data: Any) -> None:
    train = tiny_data["train"]
    words, labels = training_rows(train, made(trained_on=row_hashes(train)[::2]), "tiny")
    assert (words, labels.tolist()) == (train["text"][::2], train["label"][::2])
    with pytest.raises(
        DataError, match=r"on no row of the training split of tiny, .*: give the data that the model"
    ):
        training_rows(train, made(trained_on=row_hashes(train)[:0]), "tiny")


@pytest.mark.parametrize(
    ("texts", "labels"),
    [(["good film", "bad film"], [1, 1]), (["?", "!"], [0, 1])],
    ids=["one class", "no words"],
)
def test_rows_with_nothing_to_learn_are_refused(texts: list[str], labels: list[int]) -> None:
    with pytest.raises(
        DataError, match=r"tfidf cannot learn from the model's training rows .*: they need two"
    ):
        fit_classifier(texts, np.array(labels), "classification")


def test_it_answers_and_passes_on_what_it_is_unsure_of(tiny_data: Any, classifier: Any) -> None:
    texts, labels = columns(tiny_data["validation"]), np.array(tiny_data["validation"]["label"])
    alone = TextPeer(classifier)
    assert (alone(texts) == labels).mean() > 0.7
    assert not alone.passes(texts).any()
    asked: list[Any] = []

    def second(rest: Any) -> np.ndarray:
        asked.extend(rest)
        return np.full(len(rest), 7)

    sure = classifier.predict_proba([text for (text,) in texts]).max(axis=1)
    cascade = TextPeer(classifier, float(np.median(sure)), second, 3)
    passed = cascade.passes(texts)
    assert 0 < passed.mean() < 1
    np.testing.assert_array_equal(cascade(texts), np.where(passed, 7, alone(texts)))
    assert asked == [text for text, stays in zip(texts, passed, strict=True) if stays]


def test_pairs_and_scores(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"text": ["a b", "c"], "text_pair": ["d", "e"], "label": [0.5, 2.0]})
    assert columns(rows) == [("a b", "d"), ("c", "e")]
    ridge = fit_classifier(["film", "plot"] * 9, np.array([0.5, 2.0] * 9), "regression")
    save_text_peers(tmp_path, ridge, {})
    peer = read_text_peer(tmp_path, "tfidf", lambda layer: pytest.fail("no second model"))
    assert peer([("film",), ("plot",)]) == pytest.approx([0.5, 2.0], abs=0.2)


def test_the_threshold_passes_on_as_few_texts_as_the_score_allows() -> None:
    sure = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    first, second, labels = np.array([0, 0, 0, 1, 1]), np.ones(5, dtype=int), np.ones(5, dtype=int)
    passed = [
        sure < least_threshold(sure, first, second, labels, "accuracy", target) for target in (0.4, 0.6, 1.0)
    ]
    assert [int(stays.sum()) for stays in passed] == [0, 1, 3]
    assert least_threshold(sure, first, 1 - second, labels, "accuracy", 0.5) == np.inf


def test_the_second_model_is_the_cheapest_that_keeps_the_score(tiny_data: Any, classifier: Any) -> None:
    texts, labels = columns(tiny_data["calibration"]), np.array(tiny_data["calibration"]["label"])
    wrong = np.where(np.arange(len(labels)) % 3, labels, 1 - labels)
    answers, costs = {1: wrong, 2: labels, 4: labels}, {1: 0.25, 2: 0.5, 4: 1.0}
    chosen = tune_cascades(classifier, texts, labels, costs, answers, "accuracy", 0.0)
    assert (chosen["tfidf-full"]["layer"], chosen["tfidf-cut"]["layer"]) == (4, 2)
    assert 0 <= chosen["tfidf-cut"]["threshold"] <= 1
    none = tune_cascades(classifier, texts, labels, {1: 0.25, 4: 1.0}, {1: wrong, 4: labels}, "accuracy", -1)
    assert none["tfidf-cut"] == {"layer": 1, "threshold": np.inf}


def test_names_by_task_and_layers(tmp_path: Path) -> None:
    assert text_peers("regression", (0, 2, 4)) == ("tfidf",)
    assert text_peers("classification", (0, 4))[:2] == ("tfidf", "tfidf-full")
    for name in ("model2vec", "setfit"):
        assert (name in text_peers("classification", (4,))) == (find_spec(name) is not None)
    assert "setfit" not in text_peers("regression", (4,))
    names = text_peers("classification", (0, 2, 4))
    baselines = find_baselines(BenchArtifacts(tmp_path, tmp_path, 1, (0, 2, 4), names))
    assert {"tfidf", "tfidf-full", "tfidf-cut", "cut-2"} <= set(baselines)
    assert "cut-0" not in baselines
    assert [int8_graph(layer, (0, 2, 4)) for layer in (2, 4)] == ["cut-2.onnx", "static.onnx"]


def test_words_have_no_length_in_tokens(tmp_path: Path) -> None:
    artifacts = BenchArtifacts(tmp_path, tmp_path, 1, (2, 4), text_peers("classification", (2, 4)))
    assert not {"tfidf", "tfidf-full"} & set(check_baselines(artifacts, BenchConfig((1,), length=9), 3))
    with pytest.raises(ConfigError, match=r"tfidf reads words, .*: leave out length=9, or name other peers"):
        check_baselines(artifacts, BenchConfig((1,), length=9, peers=("eager-full", "tfidf")), 3)


def test_costs_of_two_stages_worked_out_by_hand() -> None:
    shares = object.__new__(FlopShares)
    spent = {("int8", None): np.array([5.0, 5.0]), ("int8", Path("other.json")): np.array([1.0, 3.0])}
    shares.full, shares.spent = np.array([10.0, 30.0]), lambda *engine: spent[engine]
    shares.depths = {2: np.array([4.0, 12.0]), 4: shares.full}
    stays = np.array([False, True])
    shares.passed = {"a": (0, np.zeros(2, dtype=bool)), "b": (2, stays), "c": (4, stays)}
    kinds = {name: Baseline(lambda _: lambda texts: np.zeros(1), "text") for name in "abc"}
    assert [shares.of(n, b, np.array([0, 1])) for n, b in kinds.items()] == pytest.approx(
        [0, 12 / 40, 30 / 40]
    )
    assert shares.of("cut-2", Baseline(kinds["a"].build, "cut", layer=2), np.array([0])) == pytest.approx(0.4)
    for policy, cost in ((None, 5 / 30), (Path("other.json"), 3 / 30)):
        ours = Baseline(kinds["a"].build, "ours", "int8", policy=policy)
        assert shares.of("ours", ours, np.array([1])) == pytest.approx(cost)
