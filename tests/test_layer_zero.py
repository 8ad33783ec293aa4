"""Layer 0 against scikit-learn's own pipeline, and on inputs that have nothing to learn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ModelError
from offramp.engine.batching import pad
from offramp.layer_zero import LinearStage, fit, fit_linear_stage, no_evidence
from offramp.layer_zero.stage import ngram_keys, pair_features, token_weights

CLS, SEP, VOCABULARY = 1, 2, 30
EMBEDDINGS = np.random.default_rng(0).normal(size=(VOCABULARY, 5)).astype(np.float32)
TEXTS = st.lists(st.integers(3, VOCABULARY - 1), max_size=9)


def encode(*texts: list[int]) -> list[dict[str, list[int]]]:
    return [{"input_ids": [CLS, *text, SEP]} for text in texts]


def corpus(classes: int, size: int = 80) -> tuple[list[dict[str, list[int]]], np.ndarray]:
    """Texts in which the tokens of a class are twice as frequent."""
    random = np.random.default_rng(1)
    labels = random.integers(classes, size=size)
    texts = []
    for label in labels:
        share = np.ones(VOCABULARY - 3)
        share[int(label) :: classes] = 2
        texts.append(
            random.choice(np.arange(3, VOCABULARY), random.integers(2, 12), p=share / share.sum()).tolist()
        )
    return encode(*texts), labels


def fitted(encodings: Any, labels: Any, classes: int, kind: Any = "classification") -> LinearStage:
    return fit_linear_stage(
        encodings, labels, classes=classes, kind=kind, embeddings=EMBEDDINGS, special=[0, CLS, SEP]
    )


def logits(stage: LinearStage, encodings: Any) -> np.ndarray:
    batch = pad(encodings)
    return stage.logits(batch["input_ids"], batch["attention_mask"])


def grams(encoding: dict[str, list[int]]) -> list[tuple[int, ...]]:
    ids = encoding["input_ids"][1:-1]
    return [*((t,) for t in ids), *pairwise(ids)]


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_the_logits_are_those_of_scikit_learns_pipeline(
    classes: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(fit, "STATIC_SCALES", (scale,))
    encodings, labels = corpus(classes)
    stage = fitted(encodings, labels, classes)
    counts = {g: sum(g in grams(e) for e in encodings) for e in encodings for g in grams(e)}
    vectorizer = TfidfVectorizer(
        analyzer=grams,
        lowercase=False,
        sublinear_tf=True,
        vocabulary=sorted(g for g, n in counts.items() if n > 1 or len(g) == 1),
    )
    features: Any = vectorizer.fit_transform(encodings)
    means = np.stack([EMBEDDINGS[e["input_ids"][1:-1]].mean(axis=0) for e in encodings])
    means -= means.mean(axis=0)
    means *= scale / np.linalg.norm(means, axis=1).mean()
    features = hstack([features, means]).tocsr() if scale else features
    twin = LogisticRegression(C=fit.INVERSE_PENALTY, tol=1e-3, max_iter=200).fit(features, labels)
    expected = twin.decision_function(features)
    ours = logits(stage, encodings)
    if classes == 2:
        np.testing.assert_allclose(ours[:, 1] - ours[:, 0], expected, atol=0.05)
    else:
        np.testing.assert_allclose(ours, expected, atol=0.05)
    assert (ours.argmax(axis=1) == twin.predict(features)).mean() > 0.98


def test_a_ridge_regression_for_scores() -> None:
    encodings, labels = corpus(3)
    stage = fitted(encodings, labels.astype(np.float32), 1, "regression")
    assert np.corrcoef(logits(stage, encodings)[:, 0], labels)[0, 1] > 0.8


@pytest.fixture(scope="module")
def stage() -> LinearStage:
    return fitted(*corpus(3), 3)


@settings(deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_a_batch_answers_as_single_texts_do(stage: LinearStage, texts: list[list[int]]) -> None:
    together = logits(stage, encode(*texts))
    alone = np.concatenate([logits(stage, encode(text)) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_a_text_without_known_ngrams_favours_no_class(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "STATIC_SCALES", (scale,))
    stage = fitted(encode([3, 4], [3, 4], [5, 6], [5, 6]), np.array([0, 0, 1, 1]), 2)
    assert (logits(stage, encode([7, 8])) == 0).all()
    assert (logits(stage, encode([])) == 0).all()
    assert logits(stage, encode([3, 4])).argmax() == 0


@pytest.mark.parametrize(
    ("texts", "labels"),
    [([[3, 4], [5]], [1, 1]), ([[], []], [0, 1]), ([[3]], [0])],
    ids=["one class", "no tokens", "one row"],
)
def test_nothing_to_learn_favours_no_class(texts: list[list[int]], labels: list[int]) -> None:
    stage = fitted(encode(*texts), np.array(labels), 2)
    assert (logits(stage, encode([3, 4], [5])) == 0).all()


def test_a_class_without_rows_is_never_the_answer() -> None:
    encodings, labels = corpus(2)
    stage = fitted(encodings, labels * 2, 3)  # classes 0 and 2
    answers = logits(stage, encodings).argmax(axis=1)
    assert set(answers) == {0, 2}
    assert (answers == labels * 2).mean() > 0.8


def test_small_data_read_embeddings_and_large_scales_are_chosen_by_held_out_loss() -> None:
    assert fitted(encode([3, 4], [5, 6], [3, 6]), np.array([0, 1, 0]), 2).reads_embeddings
    random = np.random.default_rng(0)  # the label is in one bigram, which no mean of embeddings tells
    texts = [random.permutation(np.arange(3, 15)).tolist() for _ in range(200)]
    labels = np.array([any(a == 3 and b < 9 for a, b in pairwise(t)) for t in texts]).astype(int)
    assert not fitted(encode(*texts), labels, 2).reads_embeddings


def test_bigrams_stay_within_one_text_of_a_pair() -> None:
    keys = ngram_keys(
        np.array([[CLS, 3, 4, SEP, 5, SEP]]), np.array([[False, True, True, False, True, False]]), VOCABULARY
    )[1]
    assert keys.tolist() == [3, 4, 5, 4 * VOCABULARY + 4]


def test_the_file_of_a_stage(tmp_path: Path) -> None:
    encodings, labels = corpus(2)
    stage = fitted(encodings, labels, 2)
    stage.save(tmp_path / "stage.npz")
    assert (logits(LinearStage.load(tmp_path / "stage.npz"), encodings) == logits(stage, encodings)).all()
    (tmp_path / "stage.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="holds no layer 0"):
        LinearStage.load(tmp_path / "stage.npz")


def encode_pairs(*pairs: tuple[list[int], list[int]], ends: int = 1) -> list[dict[str, list[int]]]:
    """Pairs as BERT encodes them, or with two separators as RoBERTa does."""
    return [{"input_ids": [CLS, *first, *[SEP] * ends, *second, SEP]} for first, second in pairs]


def fitted_pairs(encodings: Any, labels: Any, classes: int = 2, kind: Any = "classification") -> LinearStage:
    return fit_linear_stage(
        encodings,
        labels,
        classes=classes,
        kind=kind,
        embeddings=EMBEDDINGS,
        special=[0, CLS, SEP, 29],
        separator=SEP,
    )


def paraphrases(size: int = 120) -> tuple[list[tuple[list[int], list[int]]], np.ndarray]:
    """Random pairs; where the label is 1, the second text is the first in another order."""
    random = np.random.default_rng(2)
    labels = np.arange(size) % 2
    firsts = [random.choice(np.arange(3, 29), 6, replace=False).tolist() for _ in labels]
    return [
        (first, random.permutation(first if labels[i] else firsts[i - 1]).tolist())
        for i, first in enumerate(firsts)
    ], labels


@pytest.mark.parametrize("ends", [1, 2])
def test_pair_features_worked_out_by_hand(ends: int) -> None:
    """29 is an unknown token, which is special too and ends no text."""
    pairs = ([3, 3, 29, 4], [4, 5, 6]), ([3, 4], []), ([], [7])
    batch = pad(encode_pairs(*pairs, ends=ends))
    ids, here = batch["input_ids"], batch["attention_mask"] != 0
    weights = np.ones(VOCABULARY)
    weights[4] = 2
    found = pair_features(ids, here & ~np.isin(ids, [CLS, SEP, 29]), here & (ids == SEP), weights)
    lengths = np.log1p([[3, 3], [2, 0], [0, 1]])
    np.testing.assert_allclose(found, np.hstack([[[2 / 3, 2 / 4], [0, 0], [0, 0]], lengths]), rtol=1e-6)


def test_rare_tokens_weigh_more_and_unknown_ones_most() -> None:
    weights = token_weights(np.array([3, 5, 40]), np.array([1.5, 2.0, 4.0]), VOCABULARY)
    assert (weights[3], weights[5], weights[7]) == (1.5, 2.0, 4.0)


@pytest.mark.parametrize("ends", [1, 2])
def test_what_two_texts_share_tells_paraphrases(ends: int) -> None:
    pairs, labels = paraphrases()
    stage = fitted_pairs(encode_pairs(*pairs[:80], ends=ends), labels[:80])
    assert stage.reads_pairs
    right = logits(stage, encode_pairs(*pairs[80:], ends=ends)).argmax(axis=1) == labels[80:]
    assert right.mean() > 0.9
    without = fitted(encode_pairs(*pairs[:80], ends=ends), labels[:80], 2)
    chance = logits(without, encode_pairs(*pairs[80:], ends=ends)).argmax(axis=1) == labels[80:]
    assert not without.reads_pairs
    assert chance.mean() < 0.75
    scores = fitted_pairs(encode_pairs(*pairs, ends=ends), labels.astype(np.float32), 1, "regression")
    assert np.corrcoef(logits(scores, encode_pairs(*pairs, ends=ends))[:, 0], labels)[0, 1] > 0.9


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_a_batch_of_pairs_answers_as_single_ones_do(pairs: list[tuple[list[int], list[int]]]) -> None:
    training, labels = paraphrases(40)
    stage = fitted_pairs(encode_pairs(*training), labels)
    together = logits(stage, encode_pairs(*pairs))
    alone = np.concatenate([logits(stage, encode_pairs(pair)) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    padded = pad(
        encode_pairs(*pairs), {"input_ids": SEP}
    )  # some tokenizers pad with the separator, or on the left
    ids, mask = padded["input_ids"], padded["attention_mask"]
    np.testing.assert_allclose(stage.logits(ids, mask), together, atol=1e-5)
    places = np.argsort(mask, axis=1, kind="stable")  # padding first
    on_the_left = (np.take_along_axis(table, places, axis=1) for table in (ids, mask))
    np.testing.assert_allclose(stage.logits(*on_the_left), together, atol=1e-5)


def test_single_texts_are_fitted_and_stored_without_pairs(tmp_path: Path) -> None:
    encodings, labels = corpus(2)
    stage = fitted_pairs(encodings, labels)
    assert not stage.reads_pairs
    stage.save(tmp_path / "stage.npz")
    with np.load(tmp_path / "stage.npz") as arrays:
        assert set(arrays.files) == {"tokens", "ngrams", "weights", "idf", "bias", "special"}, "as before"


def test_flops_are_two_a_class_for_each_ngram_and_embedding() -> None:
    assert no_evidence(9, 4, []).flops().tolist() == [0, 16, 0]
    pairs, labels = paraphrases()
    stage = fitted_pairs(encode_pairs(*pairs), labels)
    each = (12 if stage.reads_embeddings else 8) + 2
    assert stage.flops().tolist() == [16, each, 0], (
        "four numbers for two classes, and a weight for each token"
    )
