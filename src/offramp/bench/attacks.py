"""The cost of an attack, ours against the released work pattern, in one run on the same examples."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import ConfigError
from offramp.attacks.examples import Example, read_examples
from offramp.attacks.options import Options
from offramp.attacks.prepared import search_examples
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.recipes.base import Composition
from offramp.attacks.run import Report, reporting
from offramp.attacks.search.base import PreparationCost
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.bench.released_same import ReferenceAttack
from offramp.engine.policy import Policy
from offramp.model.base import SegmentedModel

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULTS = Options()
REFERENCE = "same-word, released work pattern"


@dataclass(frozen=True)
class Measured:
    """One way of attacking.

    Attributes:
        name: the recipe, or `REFERENCE`.
        examples: attacked.
        seconds: wall time, without loading words and models.
        examples_per_second: the ratio of both.
        forward: forward passes per example.
        gradient: gradients per example.
        prepared: texts run once for the victim; in the seconds, and in no example's passes.
        model_share: share of the wall time in model calls, tokenisation and preparation included.
        depth: mean exit layer of the adversarial texts.
        clean_depth: mean exit layer of the clean texts.
    """

    name: str
    examples: int
    seconds: float
    examples_per_second: float
    forward: float
    gradient: float
    prepared: int
    model_share: float
    depth: float
    clean_depth: float


def bench_attack(
    model: SegmentedModel,
    policy: Policy,
    data: Dataset,
    recipes: tuple[str, ...] = ("same-plus", "same-word"),
    *,
    turns: int = 2,
    batch_size: int = 64,
    seed: int = 0,
    progress: Report | bool = False,
    options: Options = DEFAULTS,
) -> list[Measured]:
    """Attack the same examples with some recipes and with the released work pattern, and measure what each costs.

    The examples are split over the turns. In each turn all ways run, each time starting with the next way, so that a
    machine that slows down slows all of them.

    Args:
        model: the victim.
        policy: when it leaves.
        data: as for `attack`; few examples, since the released pattern is slow.
        recipes: keys of `RECIPES`.
        turns: how often the ways take turns.
        batch_size: texts that ours run at once; the examples of a turn are attacked side by side.
        seed: for whatever the recipes draw.
        progress: as for `attack`; every way's examples count.
        options: of the recipes.

    Returns:
        One per way, in the order of the recipes, the released pattern last.

    Raises:
        ConfigError: `turns` is below 1 or above the number of examples, or as for `attack`.
    """
    examples = read_examples(data)
    if not 1 <= turns <= len(examples):
        raise ConfigError(f"turns must be 1 to {len(examples)} (the number of examples), got {turns}")
    victim = WhiteBoxVictim(model, policy, batch_size=batch_size, max_forward=options.queries)
    made = {name: compose_recipe(name, victim, options) for name in recipes}
    ways = {name: _ours(recipe, victim, seed) for name, recipe in made.items()}
    ways[REFERENCE] = _released(victim, options)
    tallies = {name: np.zeros(6) for name in ways}
    finished = itertools.count(1)
    with reporting(progress) as report:

        def done() -> None:
            report(next(finished), len(examples) * len(ways))

        for turn in range(turns):
            names = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
            for name in names:
                tallies[name] += ways[name](examples[turn::turns], done)
    prepared = {name: recipe.search.prepared for name, recipe in made.items()}
    return [
        _measured(name, len(examples), tally, prepared.get(name, PreparationCost()))
        for name, tally in tallies.items()
    ]


# Wall seconds, model seconds, forward passes, gradients, layers, and clean layers, each a sum over the examples.
Way = Callable[[list[Example], Callable[[], None]], list[float]]


def _ours(composition: Composition, victim: WhiteBoxVictim, seed: int) -> Way:
    def way(examples: list[Example], done: Callable[[], None]) -> list[float]:
        started = time.perf_counter()
        outcomes = search_examples(victim, composition, examples, seed)
        wall = time.perf_counter() - started
        for _ in examples:
            done()
        budgets = [outcome.budget for outcome in outcomes]
        totals = [
            sum(getattr(budget, name) for budget in budgets) for name in ("seconds", "forward", "gradient")
        ]
        layers = sum(outcome.adversarial.answer.layer for outcome in outcomes)
        return [wall, *totals, layers, sum(outcome.clean.answer.layer for outcome in outcomes)]

    return way


def _released(victim: WhiteBoxVictim, options: Options) -> Way:
    def way(examples: list[Example], done: Callable[[], None]) -> list[float]:
        reference = ReferenceAttack(victim, options)
        started = time.perf_counter()
        pairs = []
        for example in examples:
            pairs.append(reference.attack(example.text))
            done()
        wall = time.perf_counter() - started
        totals = [reference.model_seconds, reference.forward, reference.gradient]
        layers = [sum(pair[side].answer.layer for pair in pairs) for side in (1, 0)]
        return [wall, *totals, *layers]

    return way


def _measured(name: str, examples: int, tally: NDArray[np.float64], prepared: PreparationCost) -> Measured:
    wall, inside, forward, gradient, layers, clean = tally.tolist()
    return Measured(
        name=name,
        examples=examples,
        seconds=wall,
        examples_per_second=examples / wall,
        forward=forward / examples,
        gradient=gradient / examples,
        prepared=prepared.texts,
        model_share=(inside + prepared.seconds) / wall,
        depth=layers / examples,
        clean_depth=clean / examples,
    )
