"""An attack as data that can be sent to another process, and the same attack ready to run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator
from offramp.attacks.examples import Example, Examples
from offramp.attacks.options import DEFAULT_JUDGE, Options
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.recipes.base import Composition
from offramp.attacks.result import make_row
from offramp.attacks.search.base import Outcome, run_searches
from offramp.attacks.similarity import Judge, describe_judge, load_judge
from offramp.attacks.victims.base import Victim

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class AttackSpec:
    """Everything that a process needs to attack.

    Attributes:
        victim: what is attacked.
        recipe: a key of `RECIPES`.
        options: of the recipe.
        seed: for whatever the recipe draws.
        similarity: name of the judge.
    """

    victim: Victim
    recipe: str
    options: Options
    seed: int
    similarity: str

    def prepare(self) -> PreparedAttack:
        """Load what the attack needs; `ConfigError` and `DataError` as of `attack`."""
        options = self.options
        if self.victim.kind == "regression" and options.preserve != "nothing":
            raise ConfigError(
                f"preserve={options.preserve!r} has no meaning for regression, where every edit changes the value: "
                "leave it out"
            )
        judge = load_judge(self.similarity)
        composition = compose_recipe(self.recipe, self.victim, options)
        if options.min_similarity and judge is None:
            raise ConfigError(
                f"min_similarity={options.min_similarity} needs a judge, but there is none: give "
                f"similarity={DEFAULT_JUDGE!r}"
            )
        least = composition.min_similarity if options.min_similarity is None else options.min_similarity
        constraints = replace(
            composition.constraints, judge=judge, min_similarity=0.0 if judge is None else least
        )
        queries = composition.queries if options.queries is None else options.queries
        return PreparedAttack(self, replace(composition, queries=queries, constraints=constraints), judge)


@dataclass(frozen=True)
class PreparedAttack:
    """An attack that is ready to run: words, synonyms and the judge are loaded.

    Attributes:
        spec: what was prepared.
        composition: the recipe, composed for the victim.
        judge: of similarity; None for none.
    """

    spec: AttackSpec
    composition: Composition
    judge: Judge | None

    def each_group(self, examples: Examples, groups: Sequence[Sequence[int]]) -> Iterator[Rows]:
        """Attack one group of positions after another, and yield the rows of each."""
        for positions in groups:
            yield self.attack_group(examples.take(positions))

    def attack_group(self, examples: Sequence[Example]) -> Rows:
        """Attack some examples side by side, and return their rows, in order."""
        victim = self.spec.victim
        outcomes = search_examples(victim, self.composition, examples, self.spec.seed)
        lost = {
            "clean_tokens_lost": victim.tokens_lost([o.clean.text for o in outcomes]),
            "adversarial_tokens_lost": victim.tokens_lost([o.adversarial.text for o in outcomes]),
        }
        similarities = self._similarities(outcomes)
        return [
            make_row(example.id, example.label, outcome)
            | {"similarity": similarities[i], "recipe": self.spec.recipe, "seed": self.spec.seed}
            | {name: tokens[i] for name, tokens in lost.items()}
            for i, (example, outcome) in enumerate(zip(examples, outcomes, strict=True))
        ]

    def describe(self) -> dict[str, Any]:
        """What a result says about the attack, beyond its manifest."""
        constraints = self.composition.constraints
        return {
            "min_similarity": constraints.min_similarity,
            "fewest": constraints.fewest,
            "prepared": self.composition.search.prepared.texts,
            **describe_judge(self.judge, self.spec.victim.model),
        }

    def _similarities(self, outcomes: Sequence[Outcome]) -> list[float]:
        """One per outcome: 1 if nothing changed, NaN without a judge."""
        if self.judge is None:
            return [float("nan")] * len(outcomes)
        pairs = [(o.clean.text.segments, o.adversarial.text.segments) for o in outcomes]
        changed = [i for i, (before, after) in enumerate(pairs) if before != after]
        values = np.ones(len(outcomes))
        values[changed] = self.judge.similarities([pairs[i] for i in changed])
        return values.tolist()


def search_examples(
    victim: Victim, composition: Composition, examples: Sequence[Example], seed: int
) -> list[Outcome]:
    """Run the search for some examples side by side, each with a generator of its own."""
    searches = [
        composition.search.steps(e.text, composition, generator(seed, "attack", e.id), e.label)
        for e in examples
    ]
    return run_searches(victim, searches, gradients=composition.needs_gradient, queries=composition.queries)
