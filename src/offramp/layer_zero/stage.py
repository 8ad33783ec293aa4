"""The linear stage before the first layer: n-grams, the mean embedding, and what two texts share, in numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ModelError
from offramp._core.numbers import softmax
from offramp._core.trace import Evidence

PAIR_FEATURES = 4


@dataclass(frozen=True)
class LinearStage:
    """A linear classifier on the n-grams and the mean embedding of a text's tokens, and on what two texts share.

    The logits are `b + mean_j T[w_j] + (Σ_g v_g W[g]) / ‖v‖ + Pᵀ p` over tokens `w_j` and the known uni- and bigrams g
    of the text, with `v_g = (1 + ln count) · idf_g` (TF-IDF with sublinear counts, as scikit-learn defines it), and the
    `pair_features` p. A text without a known n-gram has the logits 0. They mark it as not recognised, so that no rule
    lets it leave here (`Evidence.silent`).

    Attributes:
        tokens: `(vocabulary, classes)`: T, the linear head on the mean token embedding, applied to each embedding; zero
            if n-grams alone answer better.
        ngrams: `(features,)` int64, increasing; see `ngram_keys`.
        weights: `(features, classes)`: W.
        idf: `(features,)`.
        bias: `(classes,)`: b.
        special: `(n,)` int64: ids of special tokens, which are ignored.
        pairs: `(4, classes)`: P; empty for single texts.
        separator: `(1,)` int64: id of the token that ends the first text of a pair; empty for single texts.
    """

    tokens: NDArray[np.float32]
    ngrams: NDArray[np.int64]
    weights: NDArray[np.float32]
    idf: NDArray[np.float32]
    bias: NDArray[np.float32]
    special: NDArray[np.int64]
    pairs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    separator: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @cached_property
    def reads_embeddings(self) -> bool:
        """Whether the mean token embedding takes part."""
        return bool(self.tokens.any())

    @property
    def reads_pairs(self) -> bool:
        """Whether it compares the two texts of a pair."""
        return len(self.separator) > 0

    @cached_property
    def _token_weights(self) -> NDArray[np.float64]:
        return token_weights(self.ngrams, self.idf, len(self.tokens))

    @cached_property
    def _counts(self) -> NDArray[np.bool_]:
        """`(vocabulary,)`: whether a token belongs to the text itself; a lookup is faster than a search."""
        table = np.ones(len(self.tokens), dtype=np.bool_)
        table[self.special[self.special < len(table)]] = False
        return table

    def logits(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits `(batch, classes)` of token ids and their mask, both `(batch, length)`."""
        valid = self.valid(ids, mask)
        logits, norms = self.ngram_logits(ids, valid)
        if self.reads_embeddings:
            logits += mean_rows(self.tokens[ids], valid)
        if self.reads_pairs:
            ended = (mask != 0) & (ids == self.separator)
            logits += pair_features(ids, valid, ended, self._token_weights) @ self.pairs
        return np.where(norms[:, None] > 0, logits + self.bias, np.float32(0))

    def ngram_logits(
        self, ids: NDArray[np.int64], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The n-grams' share of the logits `(batch, classes)`, and the norm ‖v‖ `(batch,)`, 0 without known n-grams.

        Args:
            ids: token ids `(batch, length)`.
            valid: which of them count; see `valid`.
        """
        logits = np.zeros((len(ids), len(self.bias)), dtype=np.float32)
        if not len(self.ngrams):
            return logits, np.zeros(len(ids))
        texts, keys = ngram_keys(ids, valid, len(self.tokens))
        positions = self.ngrams.searchsorted(keys)
        fitted = self.ngrams.take(positions, mode="clip") == keys
        cells = texts[fitted] * len(self.ngrams) + positions[fitted]
        if not len(cells):
            return logits, np.zeros(len(ids))
        cells.sort()
        first, counts = runs(cells)
        texts, positions = np.divmod(cells[first], len(self.ngrams))
        values = (1 + np.log(counts)) * self.idf[positions]
        norms = np.sqrt(np.bincount(texts, values * values, minlength=len(ids)))
        values /= norms[texts]
        first, _ = runs(texts)
        logits[texts[first]] = np.add.reduceat(values[:, None] * self.weights[positions], first)
        return logits, norms

    def valid(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tokens of the text itself: no padding, no special tokens."""
        return (mask != 0) & self._counts[ids]

    def evidence(self, batch: Mapping[str, NDArray[np.int64]], exits: int, gates: bool) -> Evidence:
        """The output of exit 0 of a model with `exits` exits.

        No gate is trained for this exit: where the model has gates, its own is the probability of its answer.
        """
        logits = self.logits(batch["input_ids"], batch["attention_mask"])
        gate = softmax(logits).max(axis=-1) if gates else None
        return Evidence(0, exits, logits, gate, layer_zero=True)

    def flops(self) -> NDArray[np.float64]:
        """Coefficients `(3,)` of 1, n, n² of its FLOPs on n tokens.

        At most 2n n-grams and n embeddings; in pairs also the weights of n tokens, and the pair features.
        """
        classes = len(self.bias)
        each = 2.0 * classes * (3 if self.reads_embeddings else 2) + 2.0 * self.reads_pairs
        return np.array([2.0 * classes * len(self.pairs), each, 0.0])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays by name; without those of pairs for single texts, which older versions can then read."""
        named = {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}
        return {k: v for k, v in named.items() if self.reads_pairs or k not in ("pairs", "separator")}

    def save(self, path: Path) -> None:
        """Write an `.npz` file."""
        with open(path, "wb") as file:
            np.savez(file, allow_pickle=False, **self.arrays())

    @classmethod
    def load(cls, path: Path) -> LinearStage:
        """Read what `save` wrote; `ModelError` if the file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in arrays.files})
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
    tokens = ids[rows, columns]
    pair = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1] + 1)
    keys = np.concatenate([tokens, (tokens[:-1][pair] + 1) * vocabulary + tokens[1:][pair]])
    return np.concatenate([rows, rows[1:][pair]]), keys


def runs(values: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First position and length of each run of equal neighbours in `(n,)`, n ≥ 1. Much faster than `np.unique`."""
    ends = np.concatenate(([True], values[1:] != values[:-1], [True])).nonzero()[0]
    return ends[:-1], ends[1:] - ends[:-1]


def token_weights(
    ngrams: NDArray[np.int64], idf: NDArray[np.floating], vocabulary: int
) -> NDArray[np.float64]:
    """The idf `(vocabulary,)` of every token; unknown ones count as the rarest known one."""
    weights = np.full(vocabulary, idf.max(initial=1.0), dtype=np.float64)
    single = ngrams < vocabulary
    weights[ngrams[single]] = idf[single]
    return weights


def pair_features(
    ids: NDArray[np.int64],
    valid: NDArray[np.bool_],
    ended: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> NDArray[np.float32]:
    """What two texts share, `(batch, 4)`: the share of each one's distinct tokens that the other has, and log lengths.

    Args:
        ids: token ids `(batch, length)`.
        valid: tokens of the texts themselves.
        ended: separators; the first one of a row ends its first text.
        weights: how much a token counts `(vocabulary,)`.
    """
    later = np.cumsum(ended, axis=1) > 0
    sides = [np.nonzero(valid & side) for side in (~later, later)]
    distinct = [np.unique(rows * len(weights) + ids[rows, columns]) for rows, columns in sides]

    def weight(keys: NDArray[np.int64]) -> NDArray[np.float64]:
        rows, tokens = np.divmod(keys, len(weights))
        return np.bincount(rows, weights[tokens], minlength=len(ids)).astype(np.float64)

    shared = weight(np.intersect1d(distinct[0], distinct[1], assume_unique=True))
    features = np.zeros((len(ids), PAIR_FEATURES), dtype=np.float32)
    for k, (rows, _) in enumerate(sides):
        total = weight(distinct[k])
        features[:, k] = np.divide(shared, total, out=np.zeros(len(ids)), where=total > 0)
        features[:, 2 + k] = np.log1p(np.bincount(rows, minlength=len(ids)))
    return features
