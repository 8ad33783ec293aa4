"""WordNet 3.0 read from its data files: synonyms, antonyms, parts of speech, base forms. No torch.

Source: Fellbaum (ed.) 1998; file format `wndb(5WN)`, detachment rules of `morphy(7WN)`, without its lists of
irregular forms.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from offramp._core.errors import DataError

# File: part of speech. Nouns may come in two files.
FILES = {
    "data.noun": "n",
    "data.noun1": "n",
    "data.noun2": "n",
    "data.verb": "v",
    "data.adj": "a",
    "data.adv": "r",
}
ANTONYM, SIMILAR = "!", "&"


def _pairs(rules: str) -> tuple[tuple[str, str], ...]:
    return tuple((ending, base) for ending, _, base in (rule.partition(":") for rule in rules.split()))


# Endings and their replacements, by part of speech; the empty ending is the base form itself.
ENDINGS = {
    "n": _pairs("s: ses:s xes:x zes:z ches:ch shes:sh men:man ies:y"),
    "v": _pairs("s: ies:y es:e es: ed:e ed: ing:e ing:"),
    "a": _pairs("er: est: er:e est:e"),
    "r": (),
}
PLURALS = ("s", "ses", "xes", "zes", "ches", "shes", "ies", "es", "men")  # all are the inflection `s`


class Form(NamedTuple):
    """A reading of a word in WordNet: base form, part of speech, and inflection (`s`, `ed`, … or "")."""

    base: str
    speech: str
    inflection: str


@dataclass(frozen=True)
class WordNet:
    """Synonyms and antonyms of words; all in lower case, single words only.

    Attributes:
        synonyms: (base form, part of speech) to the words that share a synset with it; for adjectives also
            those of similar synsets.
        antonyms: (base form, part of speech) to their antonyms in any sense.
    """

    synonyms: dict[tuple[str, str], frozenset[str]] = field(repr=False)
    antonyms: dict[tuple[str, str], frozenset[str]] = field(repr=False)

    def forms(self, word: str) -> list[Form]:
        """All readings of a word in WordNet; none for an unknown word."""
        word = word.lower()
        forms: dict[Form, None] = {}
        for speech, endings in ENDINGS.items():
            for ending, base in (("", ""), *endings):
                stem = word[: len(word) - len(ending)] + base
                if word.endswith(ending) and (stem, speech) in self.synonyms:
                    forms[Form(stem, speech, "s" if ending in PLURALS else ending)] = None
        return list(forms)

    def interchangeable(self, word: str, other: str) -> bool:
        """Whether two words share a part of speech; always true if WordNet does not have the first one."""
        speech, other_speech = ({form.speech for form in self.forms(w)} for w in (word, other))
        return not speech or bool(speech & other_speech)

    def synonyms_of(self, form: Form) -> frozenset[str]:
        """Base forms that may replace this one: its synonyms without the antonyms of any of its senses."""
        key = form.base, form.speech
        return self.synonyms[key] - self.antonyms.get(key, frozenset()) - {form.base}


class _Synset(NamedTuple):
    words: tuple[str, ...]  # multi-word entries included: pointers count through all
    pointers: tuple[tuple[str, str, int], ...]  # symbol, key of the other synset, number of the source word


@lru_cache(maxsize=2)
def read_wordnet(folder: Path) -> WordNet:
    """Read the `FILES` in the folder; `DataError` if it holds none, or a line cannot be read."""
    synsets: dict[str, _Synset] = {}
    for name, speech in FILES.items():
        if (folder / name).exists():
            synsets |= _read(folder / name, speech)
    if not synsets:
        raise DataError(
            f"expected WordNet's data files in {folder}, found none: give the folder of data.noun"
        )
    synonyms: dict[tuple[str, str], set[str]] = defaultdict(set)
    antonyms: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key, synset in synsets.items():
        speech = key[0]
        linked = [(symbol, synsets[k].words, source) for symbol, k, source in synset.pointers if k in synsets]
        similar = [word for symbol, words, _ in linked if symbol == SIMILAR for word in words]
        for word in synset.words:
            synonyms[word, speech] |= {*synset.words, *similar}
        for symbol, opposite, source in linked:
            if symbol == ANTONYM:
                own = synset.words if source == 0 else (synset.words[source - 1],)
                # The antonyms of a word are indirect antonyms of similar words.
                for word, antonym in product((*own, *similar), opposite):
                    antonyms[word, speech].add(antonym)
                    antonyms[antonym, speech].add(word)
    return WordNet(
        *({w: frozenset(x for x in o if x.isalpha()) for w, o in t.items()} for t in (synonyms, antonyms))
    )


def _read(path: Path, speech: str) -> dict[str, _Synset]:
    synsets = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line[:1].isdigit():  # the licence, or an empty line
                continue
            try:
                synsets[speech + line[:8]] = _synset(line.partition(" | ")[0].split())
            except (ValueError, IndexError) as error:
                raise DataError(f"{path} is not a data file of WordNet: {line[:60]!r}") from error
    return synsets


def _synset(fields: list[str]) -> _Synset:
    """From the fields: offset, file, type, count, words with ids, count, pointers."""
    size = int(fields[3], 16)
    words = tuple(word.partition("(")[0].lower() for word in fields[4 : 4 + 2 * size : 2])
    at = 5 + 2 * size
    pointers = []
    for i in range(int(fields[at - 1])):
        symbol, offset, speech, source = fields[at + 4 * i : at + 4 * i + 4]
        pointers.append((symbol, speech.replace("s", "a") + offset, int(source[:2], 16)))
    return _Synset(words, tuple(pointers))
