"""The cost of attacks, ours and the released work pattern, in one run on the same examples."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator
from offramp.attacks.examples import Example, read_examples
from offramp.attacks.options import Options
from offramp.attacks.prepared import search_examples
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.recipes.base import Composition
from offramp.attacks.run import Report, reporting
from offramp.attacks.search.base import Candidate
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.bench.released_same import ReferenceAttack
from offramp.engine.policy import Policy
from offramp.model.base import SegmentedModel

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULTS = Options()
REFERENCE = "same-word, released work pattern"
REFERENCE_STOPS = "same-word, released work pattern, with a stop on success"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One way of attacking.

    Attributes:
        name: the recipe, `REFERENCE` or `REFERENCE_STOPS`.
        examples: attacked.
        seconds: wall time, without loading words and models.
        cpu_seconds: processor time of this process, all threads; steadier than `seconds` on a shared machine.
        examples_per_second: of wall time.
        forward: texts run per example.
        gradient: gradients per example.
        prepared: texts run once for the victim; in the seconds, and in no example's passes.
        model_share: share of the wall time in model calls, tokenisation and preparation included.
        depth: mean exit layer of the adversarial texts.
        clean_depth: mean exit layer of the clean texts.
        words_changed: per example.
        times_faster: processor time of `REFERENCE` over this one's, on all examples together.
        lowest, highest: 95 % bootstrap interval of that ratio over the examples; NaN for one example.
        median_times_faster: median over the examples of the same ratio.
    """

    name: str
    examples: int
    seconds: float
    cpu_seconds: float
    examples_per_second: float
    forward: float
    gradient: float
    prepared: int
    model_share: float
    depth: float
    clean_depth: float
    words_changed: float
    times_faster: float
    lowest: float
    highest: float
    median_times_faster: float


def bench_attack(
    model: SegmentedModel,
    policy: Policy,
    data: Dataset,
    recipes: tuple[str, ...] = ("same-plus", "same-word", "random-word"),
    *,
    batch_size: int = 64,
    seed: int = 0,
    progress: Report | bool = False,
    options: Options = DEFAULTS,
) -> list[Measured]:
    """Attack the same examples with some recipes and with the released work pattern, and measure what each costs.

    All ways attack one example after the other, each example alone. They take turns on every example, and each time
    another way starts, so that a machine that slows down slows all of them.

    Args:
        model: the victim.
        policy: when it leaves.
        data: as for `attack`; few examples, since the released pattern is slow.
        recipes: keys of `RECIPES`.
        batch_size: texts that ours run at once.
        seed: for whatever the recipes draw, and for the intervals.
        progress: as for `attack`; every way's examples count.
        options: of the recipes.

    Returns:
        One per way, in the order of the recipes; then the released pattern with a stop on success, and as released.

    Raises:
        ConfigError: no recipe, or as for `attack`.
        DataError: as for `attack`.
    """
    if not recipes:
        raise ConfigError("expected at least one recipe to time, got none: give 'same-word', for example")
    examples = read_examples(data)
    victim = WhiteBoxVictim(model, policy, batch_size=batch_size, max_forward=options.queries)
    ways: dict[str, Way] = {
        name: _recipe(compose_recipe(name, victim, options), victim, seed) for name in recipes
    }
    ways[REFERENCE_STOPS] = _released(ReferenceAttack(victim, options, stops=True))
    ways[REFERENCE] = _released(ReferenceAttack(victim, options))
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    finished = itertools.count(1)
    with reporting(progress) as report:
        for turn, example in enumerate(examples):
            names = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
            for name in names:
                costs[name].append(ways[name].attack(example))
                report(next(finished), len(examples) * len(ways))
    spent = {name: _spread(costs[name], ways[name].preparation) for name in ways}
    return [
        _measured(name, costs[name], way, spent[name], spent[REFERENCE], seed) for name, way in ways.items()
    ]


class Cost(NamedTuple):
    """The cost of one example, or of the preparation."""

    wall: float
    cpu: float
    in_model: float = 0.0
    forward: int = 0
    gradient: int = 0
    clean_layer: int = 0
    layer: int = 0
    words: int = 0


@dataclass(frozen=True)
class Way:
    """One way of attacking: the attack on one example, and what it has run before."""

    attack: Callable[[Example], Cost]
    preparation: Cost = field(default_factory=lambda: Cost(0.0, 0.0))
    prepared: int = 0  # texts


def _recipe(composition: Composition, victim: WhiteBoxVictim, seed: int) -> Way:
    wall, cpu = time.perf_counter(), time.process_time()
    prepared = composition.search.prepare()
    preparation = Cost(time.perf_counter() - wall, time.process_time() - cpu)

    def attack(example: Example) -> Cost:
        wall, cpu = time.perf_counter(), time.process_time()
        (outcome,) = search_examples(victim, composition, [example], seed)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        budget = outcome.budget
        layers = _layers(outcome.clean, outcome.adversarial)
        return Cost(*spent, budget.seconds, budget.forward, budget.gradient, *layers)

    return Way(attack, preparation, prepared.texts)


def _released(reference: ReferenceAttack) -> Way:
    def attack(example: Example) -> Cost:
        seconds, forward, gradient = reference.model_seconds, reference.forward, reference.gradient
        wall, cpu = time.perf_counter(), time.process_time()
        clean, best = reference.attack(example.text)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        passes = reference.forward - forward, reference.gradient - gradient
        return Cost(*spent, reference.model_seconds - seconds, *passes, *_layers(clean, best))

    return Way(attack)


def _layers(clean: Candidate, best: Candidate) -> tuple[int, int, int]:
    """Clean layer, layer, and changed words."""
    return clean.answer.layer, best.answer.layer, best.text.num_changed


def _spread(costs: list[Cost], preparation: Cost) -> Floats:
    """Processor time of each example, with its share of the preparation."""
    return np.array([cost.cpu for cost in costs]) + preparation.cpu / len(costs)


def _measured(
    name: str, costs: list[Cost], way: Way, spent: Floats, reference: Floats, seed: int
) -> Measured:
    total = Cost(*np.array([*costs, way.preparation], dtype=float).sum(0).tolist())
    count, faster = len(costs), float(reference.sum() / spent.sum())
    low, high = _interval(reference, spent, seed)
    return Measured(
        name=name,
        examples=count,
        seconds=total.wall,
        cpu_seconds=total.cpu,
        examples_per_second=count / total.wall,
        forward=total.forward / count,
        gradient=total.gradient / count,
        prepared=way.prepared,
        model_share=(total.in_model + way.preparation.wall) / total.wall,
        depth=total.layer / count,
        clean_depth=total.clean_layer / count,
        words_changed=total.words / count,
        times_faster=faster,
        lowest=low,
        highest=high,
        median_times_faster=float(np.median(reference / spent)),
    )


def _interval(reference: Floats, spent: Floats, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval, over examples, of the ratio of two totals."""
    if len(spent) < 2 or reference is spent:
        return (float("nan"), float("nan"))
    drawn = bootstrap(
        (reference, spent),
        lambda slow, fast, axis: slow.sum(axis) / fast.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=2000,
        rng=generator(seed, "bench attack"),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
