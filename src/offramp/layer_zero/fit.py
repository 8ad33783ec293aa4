"""Fit the linear stage with scikit-learn."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.numbers import log_softmax
from offramp._core.trace import Kind
from offramp.layer_zero.stage import (
    LinearStage,
    ngram_keys,
    no_evidence,
    pair_features,
    token_weights,
)

_LOG = logging.getLogger(__name__)

STATIC_SCALES = (0.0, 0.5, 2.0)  # mean length of the embedding block beside the n-grams' length of 1
INVERSE_PENALTY = 10.0  # sklearn's C; 1 to 16 differ by less than a point once the scales are chosen
TOLERANCE, ITERATIONS = 1e-3, 200
SELECTION_ROWS = 4000  # more rows choose the same scale, and take minutes for many classes
ENOUGH_FOR_ONE_SPLIT = 1000  # rows; with fewer, the loss is a mean over five splits
SMALLEST_CLASS, SMALLEST_SAMPLE = 4, 12
UNSEEN = -20.0  # bias of a class without a training row


def fit_linear_stage(
    encodings: Sequence[dict[str, list[int]]],
    labels: NDArray[Any],
    *,
    classes: int,
    kind: Kind,
    embeddings: NDArray[np.float32],
    special: Sequence[int],
    separator: int | None = None,
) -> LinearStage:
    """Fit a linear stage on training texts.

    Bigrams count if at least two texts have them. The weight of the embeddings is chosen by held-out loss. Pairs are
    compared if any text has a second part.

    Args:
        encodings: token ids without padding.
        labels: classes or values `(examples,)`.
        classes: number of logits.
        kind: a logistic or a ridge regression.
        embeddings: `(vocabulary, dim)`: the encoder's pretrained token embeddings.
        special: ids of special tokens.
        separator: the one that ends the first text of a pair; None if the tokenizer has none.

    Returns:
        The stage; one that favours no class if the texts are of one class, or have no tokens.
    """
    empty = no_evidence(len(embeddings), classes, special)
    tokens = any(set(encoding["input_ids"]).difference(special) for encoding in encodings)
    if not tokens or (kind == "classification" and len(np.unique(labels)) < 2):
        _LOG.warning("layer 0 has nothing to learn from: no text will leave there")
        return empty
    design = _Design.of(encodings, embeddings, empty.special, separator)
    scale = choose_scale(design, labels, kind)
    with converging():
        fitted = _estimator(kind).fit(design.matrix(scale), labels)
    coefficients, bias = _per_class(fitted, classes)
    ends = np.cumsum([len(design.ngrams), design.means.columns * bool(scale)])
    ngrams, static, pairs = np.split(coefficients, ends, axis=1)
    stage = replace(
        empty,
        ngrams=design.ngrams,
        weights=ngrams.T.astype(np.float32),
        idf=design.idf.astype(np.float32),
    )
    if scale:
        static = static * design.means.unit * scale
        bias = bias - static @ design.means.centre
        stage = replace(stage, tokens=(embeddings @ static.T).astype(np.float32))
    if design.pairs.columns:
        pairs = pairs * design.pairs.unit
        bias = bias - pairs @ design.pairs.centre
        stage = replace(stage, pairs=pairs.T.astype(np.float32), separator=np.array([separator]))
    return replace(stage, bias=bias.astype(np.float32))


@dataclass(frozen=True)
class _Dense:
    """A block of numbers `(examples, columns)`, which is centred, and scaled by `unit`."""

    values: NDArray[np.float32]
    centre: NDArray[np.float32]
    unit: NDArray[np.floating]

    @classmethod
    def of_one_length(cls, values: NDArray[np.float32]) -> _Dense:
        """Rows with a mean length of 1."""
        centre = values.mean(axis=0)
        length = np.linalg.norm(values - centre, axis=1).mean()
        return cls(values, centre, 1 / np.array(length or 1.0))

    @classmethod
    def standardised(cls, values: NDArray[np.float32]) -> _Dense:
        """Columns with a standard deviation of 1."""
        deviation = values.std(axis=0)
        return cls(values, values.mean(axis=0), 1 / np.where(deviation > 0, deviation, 1))

    @property
    def columns(self) -> int:
        return self.values.shape[1]

    def scaled(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        return (self.values[rows] - self.centre) * self.unit.astype(np.float32)


@dataclass(frozen=True)
class _Design:
    """The features of some texts: TF-IDF of n-grams `(examples, features)`, mean embeddings, and `pair_features`."""

    ngrams: NDArray[np.int64]
    tfidf: Any
    idf: NDArray[np.float64]
    means: _Dense
    pairs: _Dense

    @classmethod
    def of(
        cls,
        encodings: Sequence[dict[str, list[int]]],
        embeddings: NDArray[np.float32],
        special: NDArray[np.int64],
        separator: int | None,
    ) -> _Design:
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import TfidfTransformer

        texts: list[NDArray[np.intp]] = []
        keys: list[NDArray[np.int64]] = []
        means = np.zeros((len(encodings), embeddings.shape[1]), dtype=np.float32)
        for i, encoding in enumerate(encodings):
            ids = np.array([encoding["input_ids"]], dtype=np.int64)
            valid = ~np.isin(ids, special)
            rows, own = ngram_keys(ids, valid, len(embeddings))
            texts.append(rows + i)
            keys.append(own)
            if valid.any():
                means[i] = embeddings[ids[valid]].mean(axis=0)
        ngrams, features = np.unique(np.concatenate(keys), return_inverse=True)
        once = np.ones(len(features), dtype=np.float64)
        shape = (len(encodings), len(ngrams))
        counts = csr_array((once, (np.concatenate(texts), features)), shape=shape)
        counts.sum_duplicates()
        frequency = np.bincount(counts.indices, minlength=len(ngrams))
        kept = np.flatnonzero((frequency > 1) | (ngrams < len(embeddings)))
        transformer = TfidfTransformer(sublinear_tf=True).fit(counts[:, kept])
        weights = token_weights(ngrams[kept], transformer.idf_, len(embeddings))
        return cls(
            ngrams[kept],
            transformer.transform(counts[:, kept]),
            transformer.idf_,
            _Dense.of_one_length(means),
            _Dense.standardised(_compared(encodings, special, separator, weights)),
        )

    def matrix(self, scale: float, rows: NDArray[np.intp] | slice = slice(None)) -> Any:
        """The features of some rows, with the embeddings at a scale."""
        from scipy.sparse import csr_array, hstack

        blocks = [self.tfidf[rows]]
        if scale:
            blocks.append(csr_array(self.means.scaled(rows) * np.float32(scale)))
        if self.pairs.columns:
            blocks.append(csr_array(self.pairs.scaled(rows)))
        return hstack(blocks, format="csr")


def _compared(
    encodings: Sequence[dict[str, list[int]]],
    special: NDArray[np.int64],
    separator: int | None,
    weights: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The pair features `(examples, 4)`; `(examples, 0)` if no text has a second part."""
    if separator is None or all(encoding["input_ids"].count(separator) < 2 for encoding in encodings):
        return np.zeros((len(encodings), 0), dtype=np.float32)
    rows = (np.array([encoding["input_ids"]], dtype=np.int64) for encoding in encodings)
    return np.concatenate(
        [pair_features(ids, ~np.isin(ids, special), ids == separator, weights) for ids in rows]
    )


def choose_scale(design: _Design, labels: NDArray[Any], kind: Kind) -> float:
    """The scale of the embeddings with the least held-out loss, on a sample of the rows.

    Where classes are too small to hold rows out, the largest scale: with a few hundred rows embeddings beat n-grams.
    """
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:SELECTION_ROWS])
    splitter: Any = ShuffleSplit
    if kind == "classification":
        values, counts = np.unique(labels[rows], return_counts=True)
        rows = rows[np.isin(labels[rows], values[counts >= SMALLEST_CLASS])]
        splitter = StratifiedShuffleSplit
    if len(rows) < SMALLEST_SAMPLE or len(np.unique(labels[rows])) < 2:
        return STATIC_SCALES[-1]
    splits = 1 if len(rows) >= ENOUGH_FOR_ONE_SPLIT else 5
    losses = np.zeros(len(STATIC_SCALES))
    for train, held_out in splitter(splits, test_size=0.25, random_state=0).split(rows, labels[rows]):
        for i, scale in enumerate(STATIC_SCALES):
            with converging():
                fitted = _estimator(kind).fit(design.matrix(scale, rows[train]), labels[rows[train]])
            features, answers = design.matrix(scale, rows[held_out]), labels[rows[held_out]]
            if kind == "regression":
                losses[i] += np.mean((fitted.predict(features) - answers) ** 2)
            else:
                losses[i] += calibrated_loss(
                    _two_sided(fitted.decision_function(features)), np.searchsorted(fitted.classes_, answers)
                )
    return STATIC_SCALES[int(losses.argmin())]


def calibrated_loss(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The least mean log loss over temperatures: a fit of few rows is too sure of itself, or not sure enough.

    Without temperatures the loss prefers a worse classifier that happens to be calibrated (20 Newsgroups: .75 for .84).
    """
    rows = np.arange(len(labels))
    return min(-log_softmax(logits * factor)[rows, labels].mean() for factor in np.geomspace(0.1, 10, 21))


def _two_sided(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits `(examples, classes)` of scikit-learn's decision values, which are `(examples,)` for two classes."""
    return scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1) / 2


def _estimator(kind: Kind) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if kind == "regression":
        return Ridge(alpha=1.0)
    return LogisticRegression(C=INVERSE_PENALTY, tol=TOLERANCE, max_iter=ITERATIONS)


@contextmanager
def converging() -> Iterator[None]:
    """Fit without warnings: a fit that stops early answers as well, and its calibration is separate."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _per_class(fitted: Any, classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients `(classes, features)` and bias `(classes,)` of an estimator that may have seen fewer classes."""
    coefficients, bias = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
    if classes == 1:
        return coefficients, bias
    if len(coefficients) == 1:  # two classes: one logit, half of it for each
        coefficients, bias = (
            np.stack([-coefficients[0], coefficients[0]]) / 2,
            np.array([-bias[0], bias[0]]) / 2,
        )
    every = np.zeros((classes, coefficients.shape[1])), np.full(classes, UNSEEN)
    every[0][fitted.classes_], every[1][fitted.classes_] = coefficients, bias
    return every
