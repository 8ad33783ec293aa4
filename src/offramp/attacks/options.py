"""What can be set of an attack: options that a command line can offer without loading torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from offramp._core.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Options:
    """What can be set of every recipe; the defaults are those of SAME.

    Args:
        lam: weight λ of the part of the loss that makes neighbouring exits disagree, 0 to 1.
        top_n: edits tried for each text of the beam in each round.
        top_k: tokens, by gradient norm, whose words may get character changes.
        beam: texts kept after each round.
        rounds: most rounds; each changes one more word.
        words: share of the words of which at most `max(3, ⌈share · words⌉)` change, or, as an int, their
            number.
        queries: most forward queries an example; None for no limit.
    """

    lam: float = 0.8
    top_n: int = 100
    top_k: int = 10
    beam: int = 5
    rounds: int = 10
    words: float | int = 0.1
    queries: int | None = None

    def __post_init__(self) -> None:
        for name in ("top_n", "top_k", "beam", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"lam is a weight between 0 and 1, got {self.lam}")
        if isinstance(self.words, int) and self.words < 1:
            raise ConfigError(f"words as a number must be at least 1, got {self.words}")
        if isinstance(self.words, float) and not 0 < self.words <= 1:
            raise ConfigError(
                f"words as a share must lie in (0, 1], got {self.words}; give an int for a number"
            )
        if self.queries is not None and self.queries < 1:
            raise ConfigError(f"queries must be at least 1, got {self.queries}")

    @classmethod
    def of(cls, **options: Any) -> Options:
        """Options by name; `ConfigError` with the near miss for a name there is none of."""
        known = {f.name for f in fields(cls)}
        for name in options:
            if name not in known:
                raise ConfigError(unknown_name("attack option", name, known))
        return cls(**options)
