"""Layer 0: a linear classifier on the tokens of a text, which answers before the encoder's first layer.

It reads token ids, so it needs no framework, no second tokenizer and no language-specific rules. Fitting uses
scikit-learn; answering needs numpy alone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ModelError
from offramp._core.numbers import log_softmax, softmax
from offramp._core.trace import Evidence, Kind

_LOG = logging.getLogger(__name__)

STATIC_SCALES = (0.0, 0.5, 2.0)  # mean length of the embedding block beside the n-grams' length of 1
INVERSE_PENALTY = 10.0  # sklearn's C; 1 to 16 differ by less than a point once the scales are chosen
TOLERANCE, ITERATIONS = 1e-3, 200
SELECTION_ROWS = 4000  # more rows choose the same scale, and take minutes for many classes
ENOUGH_FOR_ONE_SPLIT = 1000  # rows; with fewer, the loss is a mean over five splits
SMALLEST_CLASS, SMALLEST_SAMPLE = 4, 12
UNSEEN = -20.0  # bias of a class without a training row


@dataclass(frozen=True)
class LinearStage:
    """A linear classifier on the n-grams and the mean embedding of a text's tokens.

    The logits are `b + mean_j T[w_j] + (Σ_g v_g W[g]) / ‖v‖` over tokens `w_j` and the known uni- and bigrams g of the
    text, with `v_g = (1 + ln count) · idf_g` (TF-IDF with sublinear counts, as scikit-learn defines it). A text
    without a known n-gram has the logits 0, which favour no class, unless the stage reads embeddings.

    Attributes:
        tokens: `(vocabulary, classes)`: T, the linear head on the mean token embedding, applied to each embedding; zero
            if n-grams alone answer better.
        ngrams: `(features,)` int64, increasing; see `ngram_keys`.
        weights: `(features, classes)`: W.
        idf: `(features,)`.
        bias: `(classes,)`: b.
        special: `(n,)` int64: ids of special tokens, which are ignored.
    """

    tokens: NDArray[np.float32]
    ngrams: NDArray[np.int64]
    weights: NDArray[np.float32]
    idf: NDArray[np.float32]
    bias: NDArray[np.float32]
    special: NDArray[np.int64]

    @property
    def reads_embeddings(self) -> bool:
        """Whether the mean token embedding takes part."""
        return bool(self.tokens.any())

    def logits(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits `(batch, classes)` of token ids and their mask, both `(batch, length)`."""
        logits, norms = self.ngram_logits(ids, mask)
        informed = norms > 0
        if self.reads_embeddings:
            valid = self.valid(ids, mask)
            logits += mean_rows(self.tokens[ids], valid)
            informed |= valid.any(axis=1)
        return np.where(informed[:, None], logits + self.bias, 0).astype(np.float32)

    def ngram_logits(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The n-grams' share of the logits `(batch, classes)`, and the norm ‖v‖ `(batch,)`, 0 without known n-grams."""
        texts, keys = ngram_keys(ids, self.valid(ids, mask), len(self.tokens))
        positions = np.searchsorted(self.ngrams, keys)
        fitted = positions < len(self.ngrams)
        fitted[fitted] = self.ngrams[positions[fitted]] == keys[fitted]
        features = max(len(self.ngrams), 1)
        cells, counts = np.unique(texts[fitted] * features + positions[fitted], return_counts=True)
        texts, positions = np.divmod(cells, features)
        values = (1 + np.log(counts)) * self.idf[positions]
        norms = np.sqrt(np.bincount(texts, values**2, minlength=len(ids)))
        logits = np.zeros((len(ids), len(self.bias)), dtype=np.float32)
        if len(texts):
            rows, first = np.unique(texts, return_index=True)
            values /= norms[texts]
            logits[rows] = np.add.reduceat(values[:, None] * self.weights[positions], first)
        return logits, norms

    def valid(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tokens of the text itself: no padding, no special tokens."""
        return (mask != 0) & ~np.isin(ids, self.special)

    def evidence(self, batch: Mapping[str, NDArray[np.int64]], exits: int, gates: bool) -> Evidence:
        """The output of exit 0 of a model with `exits` exits.

        No gate is trained for this exit: where the model has gates, its own is the probability of its answer.
        """
        logits = self.logits(batch["input_ids"], batch["attention_mask"])
        return Evidence(0, exits, logits, softmax(logits).max(axis=-1) if gates else None)

    def flops(self) -> NDArray[np.float64]:
        """Coefficients `(3,)` of 1, n, n² of its FLOPs on n tokens: at most 2n n-grams and n embeddings."""
        return np.array([0.0, 2.0 * len(self.bias) * (3 if self.reads_embeddings else 2), 0.0])

    def save(self, path: Path) -> None:
        """Write an `.npz` file."""
        with open(path, "wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> LinearStage:
        """Read what `save` wrote; `ModelError` if the file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except Exception as error:  # zip, zlib and numpy each have their own errors
            raise ModelError(f"{path} holds no layer 0 ({type(error).__name__}: {error})") from error


def no_evidence(vocabulary: int, classes: int, special: Sequence[int]) -> LinearStage:
    """A stage that favours no class, so that no text leaves there."""
    return LinearStage(
        tokens=np.zeros((vocabulary, classes), dtype=np.float32),
        ngrams=np.zeros(0, dtype=np.int64),
        weights=np.zeros((0, classes), dtype=np.float32),
        idf=np.zeros(0, dtype=np.float32),
        bias=np.zeros(classes, dtype=np.float32),
        special=np.array(sorted(special), dtype=np.int64),
    )


def mean_rows(values: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean over the valid positions, `(batch, length, dim)` → `(batch, dim)`; 0 where there is none."""
    tokens = np.maximum(valid.sum(axis=1), 1).astype(np.float32)
    total: NDArray[np.float32] = (values * valid[..., None]).sum(axis=1) / tokens[:, None]
    return total


def ngram_keys(
    ids: NDArray[np.int64], valid: NDArray[np.bool_], vocabulary: int
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Row and key of every uni- and bigram of `(batch, length)` token ids.

    The key of a token is its id t < V, that of two neighbours a, b is (a + 1) · V + b. Bigrams never span an ignored
    token, so they stay within one text of a pair.
    """
    rows, columns = np.nonzero(valid)
    both = valid[:, :-1] & valid[:, 1:]
    first, second = ids[:, :-1][both], ids[:, 1:][both]
    keys = np.concatenate([ids[rows, columns], (first + 1) * vocabulary + second])
    return np.concatenate([rows, np.nonzero(both)[0]]), keys


def fit_linear_stage(
    encodings: Sequence[dict[str, list[int]]],
    labels: NDArray[Any],
    *,
    classes: int,
    kind: Kind,
    embeddings: NDArray[np.float32],
    special: Sequence[int],
) -> LinearStage:
    """Fit a linear stage on training texts.

    Bigrams count if at least two texts have them. The weight of the embeddings is chosen by held-out loss.

    Args:
        encodings: token ids without padding.
        labels: classes or values `(examples,)`.
        classes: number of logits.
        kind: a logistic or a ridge regression.
        embeddings: `(vocabulary, dim)`: the encoder's pretrained token embeddings.
        special: ids of special tokens.

    Returns:
        The stage; one that favours no class if the texts are of one class, or have no tokens.
    """
    empty = no_evidence(len(embeddings), classes, special)
    tokens = any(set(encoding["input_ids"]).difference(special) for encoding in encodings)
    if not tokens or (kind == "classification" and len(np.unique(labels)) < 2):
        _LOG.warning("layer 0 has nothing to learn from: no text will leave there")
        return empty
    design = _Design.of(encodings, embeddings, empty.special)
    scale = choose_scale(design, labels, kind)
    with converging():
        fitted = _estimator(kind).fit(design.matrix(scale), labels)
    coefficients, bias = _per_class(fitted, classes)
    split = design.tfidf.shape[1]
    static = coefficients[:, split:] * design.unit * scale
    return LinearStage(
        tokens=(embeddings @ static.T).astype(np.float32) if scale else empty.tokens,
        ngrams=design.ngrams,
        weights=coefficients[:, :split].T.astype(np.float32),
        idf=design.idf.astype(np.float32),
        bias=(bias - design.centre @ static.T if scale else bias).astype(np.float32),
        special=empty.special,
    )


@dataclass(frozen=True)
class _Design:
    """The features of some texts: TF-IDF of n-grams `(examples, features)` and mean embeddings `(examples, dim)`."""

    ngrams: NDArray[np.int64]
    tfidf: Any
    idf: NDArray[np.float64]
    means: NDArray[np.float32]
    centre: NDArray[np.float32]
    unit: float  # one over the mean length of a centred mean embedding

    @classmethod
    def of(
        cls,
        encodings: Sequence[dict[str, list[int]]],
        embeddings: NDArray[np.float32],
        special: NDArray[np.int64],
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
        ones = np.ones(len(features), dtype=np.float64)
        shape = (len(encodings), len(ngrams))
        counts = csr_array((ones, (np.concatenate(texts), features)), shape=shape)
        counts.sum_duplicates()
        frequency = np.bincount(counts.indices, minlength=len(ngrams))
        kept = np.flatnonzero((frequency > 1) | (ngrams < len(embeddings)))
        counts = counts[:, kept]
        transformer = TfidfTransformer(sublinear_tf=True).fit(counts)
        centre = means.mean(axis=0)
        length = float(np.linalg.norm(means - centre, axis=1).mean())
        return cls(
            ngrams[kept],
            transformer.transform(counts),
            transformer.idf_,
            means,
            centre,
            1 / (length or 1.0),
        )

    def matrix(self, scale: float, rows: NDArray[np.intp] | slice = slice(None)) -> Any:
        """The features of some rows, with the embeddings at a scale."""
        from scipy.sparse import csr_array, hstack

        if not scale:
            return self.tfidf[rows]
        static = (self.means[rows] - self.centre) * np.float32(self.unit * scale)
        return hstack([self.tfidf[rows], csr_array(static)], format="csr")


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
