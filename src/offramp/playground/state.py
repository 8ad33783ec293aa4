"""What a page shows, as its address says: texts, models, rules, and the attack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from offramp._core.errors import CriterionError, unknown_name
from offramp.engine.policy import Policy
from offramp.playground.attack import DEFAULT, recipes_for
from offramp.playground.models import PlayModel, adjusted

MOST_SIDES = 2
# Of a text. Models read less, an address must not grow without end, and the tokenizers' library cuts a pair of texts in
# a time that grows with the square of their length: 10,000 characters each may take a minute.
MOST_CHARACTERS = 4_000
MOST_WORDS = 20  # changed by an attack
FEWEST_WORDS = 3  # SAME's, for a short text
CALIBRATED, PLAIN = "calibrated", "none"


@dataclass(frozen=True)
class Side:
    """A model under a rule.

    Attributes:
        model: the model.
        rule: name of the rule among the model's.
        threshold: of the rule; None for its own.
        calibrated: whether logits are divided by the temperatures of the rule.
        policy: of all these.
    """

    model: PlayModel
    rule: str
    threshold: float | None
    calibrated: bool
    policy: Policy


@dataclass(frozen=True)
class PageState:
    """The content of a page.

    Attributes:
        text, text_pair: the texts.
        sides: the models, each under its rule, one or two.
        target: index of the side that is attacked.
        recipe: of the attack.
        words: most words that the attack may change.
        problems: what the address asked for in vain, a sentence each.
    """

    text: str
    text_pair: str
    sides: tuple[Side, ...]
    target: int
    recipe: str
    words: int
    problems: tuple[str, ...] = ()

    @property
    def pair(self) -> bool:
        """Whether a model on the page may read a second text."""
        return any(side.model.pair is not False for side in self.sides)


def read_state(query: Iterable[tuple[str, str]], models: Mapping[str, PlayModel]) -> PageState:
    """The state in the query of an address; what cannot be used is reported as a problem and replaced by a default.

    Args:
        query: names and values. `model`, `rule`, `threshold` and `temperatures` occur once for each side, in order.
        models: by name, at least one.
    """
    given: dict[str, list[str]] = {}
    for name, value in query:
        given.setdefault(name, []).append(value)
    reader = StateReader(given)
    sides = reader.number("sides", len(models), 1, MOST_SIDES)
    read = tuple(reader.side(i, models) for i in range(sides))
    target = min(reader.number("target", 1, 1, MOST_SIDES), sides) - 1
    recipes = recipes_for(read[target].model)
    usual = recipes.index(DEFAULT) if DEFAULT in recipes else 0
    return PageState(
        text=reader.text("text"),
        text_pair=reader.text("text_pair"),
        sides=read,
        target=target,
        recipe=reader.choice("recipe", 0, recipes, usual),
        words=reader.number("words", FEWEST_WORDS, 1, MOST_WORDS),
        problems=tuple(reader.problems),
    )


class StateReader:
    """Reads the values of a query, and notes those that cannot be used.

    Args:
        given: values by name.
    """

    def __init__(self, given: Mapping[str, Sequence[str]]) -> None:
        self.given = given
        self.problems: list[str] = []

    def value(self, name: str, position: int = 0) -> str:
        """A value; empty if it is not given."""
        values = self.given.get(name, ())
        return values[position] if position < len(values) else ""

    def text(self, name: str) -> str:
        """A text, cut where it is too long."""
        text = self.value(name)
        if len(text) > MOST_CHARACTERS:
            self.problems.append(
                f"expected a text of at most {MOST_CHARACTERS:,} characters, got {len(text):,}: the rest is left out"
            )
        return text[:MOST_CHARACTERS]

    def choice(self, name: str, position: int, choices: Sequence[str], default: int = 0) -> str:
        """One of some names."""
        value = self.value(name, position)
        if value in choices:
            return value
        if value:
            self.problems.append(f"{unknown_name(name, value, choices)}; {choices[default]!r} is used")
        return choices[default]

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value, default = self.value(name), min(max(default, low), high)
        if value.isdecimal() and low <= int(value[:9]) <= high:
            return int(value)
        if value:
            self.problems.append(
                f"expected a whole number from {low} to {high} as {name}, got {value!r:.80}: {default} is used"
            )
        return default

    def side(self, position: int, models: Mapping[str, PlayModel]) -> Side:
        """The side at a position; by default the model at the same position."""
        names = list(models)
        model = models[self.choice("model", position, names, min(position, len(names) - 1))]
        rule = self.choice("rule", position, list(model.rules))
        calibrated = self.choice("temperatures", position, (CALIBRATED, PLAIN)) == CALIBRATED
        policy, threshold = adjusted(model.rules[rule], None, calibrated=calibrated), None
        if value := self.value("threshold", position).strip():
            try:
                threshold = float(value)
                policy = adjusted(policy, threshold, calibrated=calibrated)
            except (ValueError, CriterionError) as error:
                reason = (
                    str(error)
                    if isinstance(error, CriterionError)
                    else f"expected a number, got {value!r:.80}"
                )
                self.problems.append(f"threshold: {reason}; the rule's own is used")
                threshold = None
        assert threshold is None or math.isfinite(threshold), "the rule has checked it"
        return Side(model, rule, threshold, calibrated, policy)
