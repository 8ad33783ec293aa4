"""Attack a data set: examples in groups, side by side; stopped runs go on where they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from offramp._core.errors import ConfigError
from offramp._core.seeding import generator
from offramp.attacks.examples import Example, Examples, halves
from offramp.attacks.options import Options
from offramp.attacks.progress import Report, reporting
from offramp.attacks.recipes import UNIVERSAL, make_recipe
from offramp.attacks.recipes.base import Recipe
from offramp.attacks.recipes.requirements import require_probabilities
from offramp.attacks.result import AttackResult, make_row
from offramp.attacks.search.base import Candidate
from offramp.attacks.search.runner import Outcome, run_searches
from offramp.attacks.search.universal import find_trigger
from offramp.attacks.similarity.judges import DEFAULT_JUDGE, Judge, judged_by, load_judge
from offramp.attacks.store import Store
from offramp.attacks.victims.base import Victim
from offramp.attacks.victims.black_box import as_victim
from offramp.attacks.victims.fingerprints import texts_fingerprint
from offramp.data import check_fit, fingerprint
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.model.base import SegmentedModel


def attack(
    model: SegmentedModel | Engine | Victim,
    policy: Policy | None,
    dataset: Any,
    recipe: str = "same-word",
    *,
    seed: int = 0,
    output: str | Path | None = None,
    resume: bool = False,
    batch_size: int = 64,
    group: int = 16,
    similarity: str = DEFAULT_JUDGE,
    progress: Report | bool = True,
    workers: int | Literal["all"] | None = None,
    **options: Any,
) -> AttackResult:
    """Change the words of each example so that it leaves as late as possible.

    The result for an example depends on the model, the policy, the recipe and its options, the seed and the
    example's id: not on the other examples, their order, `batch_size` or `group` (but for float noise).

    Args:
        model: the victim: a model with its tokenizer, a deployed `Engine` (black box), or any `Victim`, such as
            `FunctionVictim` and `GreyBox`.
        policy: when a model leaves; None for the others.
        dataset: a `datasets.Dataset` with columns `id`, `text`, for pairs `text_pair`, and optionally
            `label`.
        recipe: a key of `RECIPES`.
        seed: for whatever the recipe draws.
        output: folder for finished groups and at last `attack.parquet`; None keeps the result in memory.
        resume: go on with what `output` holds of this very attack.
        batch_size: texts the model runs at once.
        group: examples attacked side by side, and saved together.
        similarity: the judge: `use`, `none`, or an encoder by name.
        workers: None attacks in this process; else as many workers of the ray cluster that RAY_ADDRESS names,
            or of this machine, get a group at a time: with the same result, whatever becomes of a worker.
        progress: True for a bar or lines on stderr, or a function of (examples done, examples in all).
        options: of the recipe; see `Options`.

    Finished groups go to `output` and out of memory, so that the number of examples does not matter.

    Returns:
        One row an example, in the order of the data. An example that leaves at the last exit anyway stays
        as it is. Of 'waffle-universal' without a trigger the half that it was not searched on; what is found
        then depends on the examples.

    Raises:
        ConfigError: an unknown recipe or option, a bad value, one that means nothing for the recipe or the victim's
            task, a folder that holds another attack, or a recipe that looks inside a victim that is a black box.
        CriterionError: the policy was made for another model.
        DataError: no examples, no texts, ids that repeat, or ids and labels that are no numbers.
    """
    if group < 1:
        raise ConfigError(f"group must be at least 1, got {group}: examples are attacked side by side")
    settings = Options.of(**options)
    if settings.trigger.split() and recipe != UNIVERSAL:
        raise ConfigError(f"a trigger is for {UNIVERSAL!r}, not for {recipe!r}: leave it out")
    victim = as_victim(model, policy, batch_size)
    if not isinstance(model, Victim):
        check_fit(dataset, model.labels, victim.kind)
    examples = Examples(dataset, victim.kind)
    places: Sequence[int] = range(len(examples))
    extra: dict[str, Any] = {}
    if recipe == UNIVERSAL and not settings.trigger.split():
        trigger, places, extra = _search_trigger(victim, examples, seed)
        settings = replace(settings, trigger=trigger)
    job = AttackSpec(victim, recipe, settings, seed, similarity)
    opened = job.open()  # here too: what cannot work is told before any folder is made
    manifest = {"recipe": recipe, "seed": seed, "options": asdict(settings), "similarity": similarity}
    manifest |= {"kind": victim.kind, **victim.describe()}
    labels = ((str(label),) for label in examples.labels(places))
    manifest |= {
        "texts": texts_fingerprint(examples.segments(places)),
        "labels": texts_fingerprint(enumerate(labels)),
        "limits": [victim.max_forward, victim.max_gradient],
    }
    with Store(None if output is None else Path(output), manifest, resume=resume) as store:
        todo = [place for place in places if examples.ids[place] not in store.done]
        groups = [todo[start : start + group] for start in range(0, len(todo), group)]
        with reporting(progress) as report:
            report(len(store.done), len(places))
            for rows in (
                opened.each(examples, groups) if workers is None else _shard(job, examples, groups, workers)
            ):
                store.add(rows)
                report(len(store.done), len(places))
        extra |= {**opened.describe(), "data": fingerprint(dataset)}
        return store.finish([examples.ids[place] for place in places], extra)


@dataclass(frozen=True)
class AttackSpec:
    """All that a process needs in order to attack: it can be sent to another one."""

    victim: Victim
    recipe: str
    options: Options
    seed: int
    similarity: str

    def open(self) -> PreparedAttack:
        """The attack, ready to run; `ConfigError` and `DataError` as of `attack`."""
        keep, queries = self.options.keep, self.options.queries
        if self.victim.kind == "regression" and keep != "nothing":
            raise ConfigError(
                f"keep={keep!r} means nothing for a regression, whose value every edit moves: leave it out"
            )
        judge = load_judge(self.similarity)
        recipe = make_recipe(self.recipe, self.victim, self.options)
        recipe = recipe if queries is None else replace(recipe, queries=queries)
        return PreparedAttack(self, judged(recipe, judge, self.options.min_similarity), judge)


@dataclass(frozen=True)
class PreparedAttack:
    """An attack that is ready to run: words, synonyms and the judge are loaded."""

    job: AttackSpec
    recipe: Recipe
    judge: Judge | None

    def group(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """The rows of some examples that are attacked side by side."""
        return attack_group(self.job.victim, self.recipe, examples, self.job.seed, self.judge)

    def each(self, examples: Examples, groups: Sequence[Sequence[int]]) -> Iterator[list[dict[str, Any]]]:
        """The rows of one group after another."""
        for places in groups:
            yield self.group(examples.take(places))

    def describe(self) -> dict[str, Any]:
        """What the result says about it."""
        constraints = self.recipe.constraints
        told = {"min_similarity": constraints.min_similarity, "fewest": constraints.fewest}
        told["prepared"] = self.recipe.search.prepared.texts
        return {**told, **judged_by(self.judge, self.job.victim.model)}


def _shard(
    job: AttackSpec, examples: Examples, groups: Sequence[Sequence[int]], workers: int | Literal["all"]
) -> Iterator[list[dict[str, Any]]]:
    from offramp.attacks.ray_workers import on_ray

    return on_ray(job, examples, groups, workers)


def judged(recipe: Recipe, judge: Judge | None, wanted: float | None) -> Recipe:
    """The recipe with the least similarity that is wanted, else its own; without a judge there is none.

    Raises:
        ConfigError: a similarity is wanted, but there is no judge.
    """
    if wanted and judge is None:
        raise ConfigError(f"min_similarity={wanted} needs a judge, but there is none: give similarity='use'")
    least = 0.0 if judge is None else recipe.min_similarity if wanted is None else wanted
    return replace(recipe, constraints=replace(recipe.constraints, judge=judge, min_similarity=least))


def _search_trigger(victim: Victim, examples: Examples, seed: int) -> tuple[str, list[int], dict[str, Any]]:
    """A trigger searched on one half of the examples, the other half's places, and what is to be said about it."""
    require_probabilities(victim)
    searched, tested = halves(len(examples), seed)
    trigger = find_trigger(victim.white_box, [e.text for e in examples.take(searched)])
    told = {"trigger": asdict(trigger), "searched_on": [examples.ids[place] for place in searched]}
    return str(trigger), tested, told


def attack_group(
    victim: Victim, recipe: Recipe, examples: Sequence[Example], seed: int, judge: Judge | None
) -> list[dict[str, Any]]:
    """Attack some examples side by side: their rows, in order."""
    searches = [
        recipe.search.steps(e.text, recipe, generator(seed, "attack", e.id), e.label) for e in examples
    ]
    outcomes = run_searches(victim, recipe, searches)
    lost = [victim.tokens_lost([found.text for found in side]) for side in _sides(outcomes)]
    rows = []
    for e, outcome, similarity, *tokens in zip(
        examples, outcomes, _similarities(outcomes, judge), *lost, strict=True
    ):
        row = make_row(e.id, e.label, outcome)
        row |= {"similarity": similarity, "recipe": recipe.name, "seed": seed}
        rows.append(row | dict(zip(("clean_tokens_lost", "adversarial_tokens_lost"), tokens, strict=True)))
    return rows


def _sides(outcomes: Sequence[Outcome]) -> tuple[list[Candidate], list[Candidate]]:
    return [o.clean for o in outcomes], [o.adversarial for o in outcomes]


def _similarities(outcomes: Sequence[Outcome], judge: Judge | None) -> list[float]:
    """One an outcome: 1 where nothing changed, NaN without a judge."""
    if judge is None:
        return [float("nan")] * len(outcomes)
    pairs = [(o.clean.text.segments, o.adversarial.text.segments) for o in outcomes]
    changed = [i for i, (before, after) in enumerate(pairs) if before != after]
    values = np.ones(len(outcomes))
    values[changed] = judge.similarities([pairs[i] for i in changed])
    return values.tolist()
