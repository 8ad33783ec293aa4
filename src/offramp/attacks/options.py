"""What can be set of an attack: options that a command line can offer without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from offramp._core.errors import ConfigError, unknown_name
from offramp._core.numbers import check_number

Keep = Literal["nothing", "prediction", "label"]  # what an attack must not change
Weighting = Literal["growing", "flat"]
UNLIMITED = ("queries", "max_edits")  # None is no limit


@dataclass(frozen=True)
class Options:
    """What can be set of every recipe; the defaults are those of SAME.

    Args:
        lam: weight λ of the part of the loss that makes neighbouring exits disagree, 0 to 1.
        weighting: of the exits in SAME's loss: growing from the current one on, as published, or flat.
        top_n: edits tried for each text of the beam in each round.
        top_k: tokens, by gradient norm, whose words may get character changes.
        beam: texts kept after each round.
        rounds: most rounds; each changes one more word.
        words: share of the words of which at most `max(3, ⌈share · words⌉)` change, or, as an int, their
            number.
        queries: most forward queries an example; None for the recipe's own limit, which most have not.
        keep: what must stay: nothing, the prediction for the clean text, or the label where it was right.
        min_similarity: least similarity that the judge must find; None for the recipe's own.
        max_edits: most characters by which all changed words together may differ; None for no limit.
        grammar: whether a new word must share a part of speech with the old one.
        trigger: words for 'waffle-universal' to put in front; empty to search them on half of the examples.
        lexicon: folder with WordNet, word vectors and misspellings of your own; None downloads them once.
        masked_lm: the masked language model of 'bertattack': a folder, or a hub id.
    """

    lam: float = 0.8
    weighting: Weighting = "growing"
    top_n: int = 100
    top_k: int = 10
    beam: int = 5
    rounds: int = 10
    words: float | int = 0.1
    queries: int | None = None
    keep: Keep = "nothing"
    min_similarity: float | None = None
    max_edits: int | None = None
    grammar: bool = False
    trigger: str = ""
    lexicon: str | None = None
    masked_lm: str = "google-bert/bert-base-uncased"

    def __post_init__(self) -> None:
        for name in ("top_n", "top_k", "beam", "rounds", "queries", "max_edits"):
            value = getattr(self, name)
            if value is None and name in UNLIMITED:
                continue
            check_number(name, value, "a whole number of at least 1", lambda n: n >= 1, whole=True)
        check_number("lam", self.lam, "a weight from 0 to 1", lambda n: 0 <= n <= 1)
        words = "a share in (0, 1], or an int of at least 1"
        check_number("words", self.words, words, lambda n: n >= 1 if isinstance(n, int) else 0 < n <= 1)
        if self.min_similarity is not None:
            check_number("min_similarity", self.min_similarity, "a cosine from 0 to 1", lambda n: 0 <= n <= 1)
        if self.keep not in get_args(Keep):
            raise ConfigError(unknown_name("value of keep", str(self.keep), get_args(Keep)))
        if self.weighting not in get_args(Weighting):
            raise ConfigError(unknown_name("weighting", str(self.weighting), get_args(Weighting)))
        if not isinstance(self.trigger, str):
            raise ConfigError(f"trigger is words in one string, got {self.trigger!r}")

    @classmethod
    def of(cls, **options: Any) -> Options:
        """Options by name; `ConfigError` with the near miss for a name there is none of."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise ConfigError(unknown_name("attack option", name, known))
        return cls(**options)
