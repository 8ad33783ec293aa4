"""An attack as data for another process, and the same attack ready to run, locally or on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import nn

from offramp._core.cluster import PATIENCE, RETRIES, connect, worker_slots
from offramp._core.errors import ConfigError, OfframpError
from offramp._core.seeding import generator
from offramp.attacks.examples import Example, Examples
from offramp.attacks.options import DEFAULT_JUDGE, Options
from offramp.attacks.recipes import compose_recipe
from offramp.attacks.recipes.base import Composition
from offramp.attacks.result import make_row
from offramp.attacks.search.base import Outcome, run_searches
from offramp.attacks.similarity.base import Judge
from offramp.attacks.similarity.judges import describe_judge, load_judge
from offramp.attacks.victims.base import Victim
from offramp.attacks.victims.white_box import WhiteBoxVictim
from offramp.model.loading import named_device

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class AttackSpec:
    """Everything that a process needs to attack; `similarity` names the judge."""

    victim: Victim
    recipe: str
    options: Options
    seed: int
    similarity: str

    def prepare(self) -> PreparedAttack:
        """Load words, synonyms and the judge; raises the errors of `attack`."""
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
                f"min_similarity={options.min_similarity} needs a judge, but similarity is 'none': give "
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
    """An attack that is ready to run: the recipe is composed for the victim, and the judge is loaded, if any."""

    spec: AttackSpec
    composition: Composition
    judge: Judge | None

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
        """Facts about the attack for a result, beyond its manifest."""
        constraints = self.composition.constraints
        return {
            "min_similarity": constraints.min_similarity,
            "fewest": constraints.fewest,
            "prepared": self.composition.search.prepared.texts,
            **describe_judge(self.judge, self.spec.victim.model),
        }

    def _similarities(self, outcomes: Sequence[Outcome]) -> list[float]:
        """The similarity of each outcome: 1 if nothing changed, NaN without a judge."""
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


class Worker:
    """One process of the cluster, with the attack ready to run."""

    def __init__(self, spec: AttackSpec) -> None:
        if isinstance(spec.victim, WhiteBoxVictim):
            model: nn.Module = spec.victim.model  # the library's own `to` is typed for dtypes only
            model.to(named_device("auto"))
        self.prepared = spec.prepare()

    def attack_group(self, examples: list[Example]) -> Rows:
        return self.prepared.attack_group(examples)


def on_ray(
    spec: AttackSpec, examples: Examples, groups: Sequence[Sequence[int]], workers: int | Literal["all"]
) -> Iterator[Rows]:
    """Yield the rows of all groups, in the order in which they are finished.

    A worker attacks a group side by side, as one process does, so its rows are the same, except for the clock. If a
    worker dies, a new one gets its group.

    Args:
        spec: the attack; it is sent to every worker once.
        examples: the data.
        groups: positions of examples.
        workers: the number of workers, or "all" for as many as the cluster's processors (or GPUs) allow.

    Raises:
        MissingExtraError: ray is not installed.
        OfframpError: a worker raised it, or the workers of one group died repeatedly.
    """
    if not groups:
        return
    ray = connect()
    count, takes = worker_slots(ray, None if workers == "all" else workers)
    remote, sent = ray.remote(**takes)(Worker), ray.put(spec)
    waiting, died = deque(range(len(groups))), [0] * len(groups)
    idle = deque(remote.remote(sent) for _ in range(min(count, len(groups))))
    running: dict[Any, tuple[Any, int]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, number = idle.popleft(), waiting.popleft()
                running[worker.attack_group.remote(examples.take(groups[number]))] = worker, number
            finished, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
            for task in finished:
                worker, number = running.pop(task)
                try:
                    rows = ray.get(task)
                except ray.exceptions.RayActorError:
                    rows = None
                except OfframpError as error:  # raised by the worker: ray re-raises it as a class of its own
                    raise getattr(error, "cause", error) from error
                if rows is None:
                    died[number] += 1
                    _give_up(died[number], groups[number])
                    waiting.appendleft(number)
                    worker = remote.remote(sent)
                idle.append(worker)
                if rows is not None:
                    yield rows
    finally:
        for worker in (*idle, *(worker for worker, _ in running.values())):
            ray.kill(worker)


def _give_up(times: int, group: Sequence[int]) -> None:
    if times > RETRIES:
        raise OfframpError(
            f"the workers of the group that starts with example {group[0]} died {times} times: attack it in one "
            "process to see why; finished groups are kept"
        )
