"""The options of an attack. Importing them does not load torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from offramp._core.arguments import as_python, check_share, choice, flag, number, set_fields, whole
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.numbers import is_number

Preserve = Literal["nothing", "prediction", "label"]  # what an attack must not change
Weighting = Literal["growing", "flat"]
UNLIMITED = ("queries", "max_edits")  # None is no limit

DEFAULT_JUDGE = "universal_sentence_encoder"
NO_JUDGE = "none"

# Records, manifests and Parquet metadata keep the names of the first version.
RECORD_KEYS = {"preserve": "keep", "max_changed_words": "words", "disagreement_weight": "lam"}
RECORD_JUDGES = {DEFAULT_JUDGE: "use"}


@dataclass(frozen=True)
class Options:
    """The options of every recipe; the defaults are those of SAME.

    Args:
        disagreement_weight: weight λ of the term in SAME's loss that makes neighbouring exits disagree, 0 to 1.
        weighting: of the exits in SAME's loss: growing from the current exit on, as published, or flat.
        top_n: edits tried for each text of the beam in each round.
        top_k: tokens, by gradient norm, whose words may get character changes.
        beam: texts kept after each round.
        rounds: most rounds; each changes one more word.
        max_changed_words: share of the words that may change, at most `max(3, ⌈share · words⌉)` of them; an int is
            their number.
        queries: most forward queries per example; None for the recipe's own limit, if any.
        preserve: what must not change: nothing, the prediction for the clean text, or the label if it was right.
        min_similarity: least similarity by the judge; None for the recipe's own.
        max_edits: most characters that may differ in all changed words together; None for no limit.
        grammar: whether a new word must share a part of speech with the old one.
        trigger: words that 'waffle-universal' puts in front; empty to search for them on half of the examples.
        lexicon: folder with your own WordNet, word vectors and misspellings; None downloads them once.
        masked_lm: the masked language model of 'bertattack': a folder, or a hub id.
    """

    disagreement_weight: float = 0.8
    weighting: Weighting = "growing"
    top_n: int = 100
    top_k: int = 10
    beam: int = 5
    rounds: int = 10
    max_changed_words: float | int = 0.1
    queries: int | None = None
    preserve: Preserve = "nothing"
    min_similarity: float | None = None
    max_edits: int | None = None
    grammar: bool = False
    trigger: str = ""
    lexicon: str | None = None
    masked_lm: str = "google-bert/bert-base-uncased"

    def __post_init__(self) -> None:
        for name in ("top_n", "top_k", "beam", "rounds", "queries", "max_edits"):
            value = getattr(self, name)
            if value is not None or name not in UNLIMITED:
                set_fields(self, **{name: whole(name, value, 1)})
        set_fields(
            self,
            disagreement_weight=check_share("disagreement_weight", self.disagreement_weight),
            max_changed_words=self._word_limit(),
            preserve=choice("value of preserve", self.preserve, get_args(Preserve)),
            weighting=choice("weighting", self.weighting, get_args(Weighting)),
            grammar=flag("grammar", self.grammar),
        )
        if self.min_similarity is not None:
            set_fields(self, min_similarity=check_share("min_similarity", self.min_similarity))
        if not isinstance(self.trigger, str):
            raise ConfigError(f"trigger must be one string of words, got {self.trigger!r}")

    def _word_limit(self) -> float | int:
        """The number of words that may change, or their share."""
        words = as_python(self.max_changed_words)
        if is_number(words, whole=True):
            span = "a share above 0, or a number of at least 1"
            return int(number("max_changed_words", words, span, lambda n: n >= 1))
        return check_share("max_changed_words, unless it is a whole number of words,", words, zero=False)

    @classmethod
    def of(cls, **options: Any) -> Options:
        """Options by name; `ConfigError` with the nearest name for an unknown one."""
        names = {f.name for f in fields(cls)}
        for name in options:
            if name not in names:
                raise ConfigError(unknown_name("attack option", name, names))
        return cls(**options)

    def to_record(self) -> dict[str, Any]:
        """All options under the keys that records use."""
        return to_record(asdict(self))


def to_record(options: Mapping[str, Any]) -> dict[str, Any]:
    """Some options under the keys that records use."""
    return {RECORD_KEYS.get(name, name): value for name, value in options.items()}


def from_record(options: Mapping[str, Any]) -> dict[str, Any]:
    """Some options of a record under their own names."""
    names = {key: name for name, key in RECORD_KEYS.items()}
    return {names.get(key, key): value for key, value in options.items()}
