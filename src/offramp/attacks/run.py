"""Attack a data set: examples in groups, side by side; stopped runs go on where they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offramp._core.errors import ConfigError, DataError
from offramp._core.seeding import generator
from offramp.attacks.drive import Outcome, side_by_side
from offramp.attacks.options import Options
from offramp.attacks.progress import Report, reporting
from offramp.attacks.recipe import Recipe
from offramp.attacks.recipes import make_recipe
from offramp.attacks.result import AttackResult, make_row
from offramp.attacks.similarity import DEFAULT_JUDGE, Judge, judged_by, load_judge
from offramp.attacks.store import Store, describe_policy, texts_fingerprint, weights_fingerprint
from offramp.attacks.text import AttackedText
from offramp.attacks.victim import Victim
from offramp.data import fingerprint
from offramp.engine.policy import Policy
from offramp.model.base import SegmentedModel


@dataclass(frozen=True)
class Example:
    """One example of the data."""

    id: int
    text: AttackedText
    label: int | float | None


def attack(
    model: SegmentedModel,
    policy: Policy,
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
    **options: Any,
) -> AttackResult:
    """Change the words of each example so that it leaves as late as possible.

    The result for an example depends on the model, the policy, the recipe and its options, the seed and the
    example's id: not on the other examples, their order, `batch_size` or `group` (but for float noise).

    Args:
        model: the victim, with its tokenizer.
        policy: when it leaves.
        dataset: a `datasets.Dataset` with columns `id`, `text`, for pairs `text_pair`, and optionally
            `label`.
        recipe: a key of `RECIPES`.
        seed: for whatever the recipe draws.
        output: folder for finished groups and at last `attack.parquet`; None keeps the result in memory.
        resume: go on with what `output` holds of this very attack.
        batch_size: texts the model runs at once.
        group: examples attacked side by side, and saved together.
        similarity: the judge: `use`, `none`, or an encoder by name.
        progress: True for a bar or lines on stderr, or a function of (examples done, examples in all).
        options: of the recipe; see `Options`.

    Returns:
        One row an example, in the order of the data. An example that leaves at the last exit anyway stays
        as it is.

    Raises:
        ConfigError: an unknown recipe or option, a bad value, or a folder that holds another attack.
        CriterionError: the policy was made for another model.
        DataError: no examples, no texts, or ids that repeat.
    """
    if group < 1:
        raise ConfigError(f"group must be at least 1, got {group}: examples are attacked side by side")
    settings = Options.of(**options)
    victim = Victim(model, policy, batch_size=batch_size, max_forward=settings.queries)
    prepared = make_recipe(recipe, victim, settings)
    examples = read_examples(dataset)
    manifest = {"recipe": recipe, "seed": seed, "options": asdict(settings), "similarity": similarity}
    manifest |= describe(victim, examples)
    store = Store(None if output is None else Path(output), manifest, resume=resume)
    judge = load_judge(similarity)
    todo = [e for e in examples if e.id not in store.rows]
    with reporting(progress) as report:
        report(len(store.rows), len(examples))
        for start in range(0, len(todo), group):
            store.add(attack_group(victim, prepared, todo[start : start + group], seed, judge))
            report(len(store.rows), len(examples))
    return store.finish([e.id for e in examples], {"data": fingerprint(dataset), **judged_by(judge, model)})


def describe(victim: Victim, examples: Sequence[Example]) -> dict[str, Any]:
    """What is attacked, as JSON: task, policy, and fingerprints of weights and texts."""
    return {
        "kind": victim.kind,
        "policy": describe_policy(victim.policy),
        "weights": weights_fingerprint(victim.model),
        "texts": texts_fingerprint([(e.id, e.text.original) for e in examples]),
    }


def attack_group(
    victim: Victim, recipe: Recipe, examples: Sequence[Example], seed: int, judge: Judge | None
) -> list[dict[str, Any]]:
    """Attack some examples side by side: their rows, in order."""
    searches = [recipe.search.steps(e.text, recipe, generator(seed, "attack", e.id)) for e in examples]
    outcomes = side_by_side(victim, recipe, searches)
    similarities = _similarities(outcomes, judge)
    return [
        make_row(e.id, e.label, outcome) | {"similarity": value, "recipe": recipe.name, "seed": seed}
        for e, outcome, value in zip(examples, outcomes, similarities, strict=True)
    ]


def _similarities(outcomes: Sequence[Outcome], judge: Judge | None) -> list[float]:
    """One an outcome: 1 where nothing changed, NaN without a judge."""
    if judge is None:
        return [float("nan")] * len(outcomes)
    pairs = [(o.clean.text.segments, o.adversarial.text.segments) for o in outcomes]
    changed = [i for i, (before, after) in enumerate(pairs) if before != after]
    values = np.ones(len(outcomes))
    values[changed] = judge.similarities([pairs[i] for i in changed])
    return values.tolist()


def read_examples(dataset: Any) -> list[Example]:
    """The examples of a data set; ids are row numbers where it has none.

    Raises:
        DataError: no examples, no column `text`, a text that is no string, or ids that repeat.
    """
    names = dataset.column_names
    if "text" not in names:
        raise DataError(f"expected a column 'text', found {names}: load the data with offramp.load_data")
    if not len(dataset):
        raise DataError("the data set is empty: there is nothing to attack")
    ids = list(dataset["id"]) if "id" in names else list(range(len(dataset)))
    if len(set(ids)) < len(ids):
        raise DataError(f"expected different ids, got {len(ids) - len(set(ids))} repeated: number the rows")
    pairs = list(dataset["text_pair"]) if "text_pair" in names else [None] * len(ids)
    labels = list(dataset["label"]) if "label" in names else [None] * len(ids)
    texts = list(dataset["text"])
    for text in (*texts, *(pairs if "text_pair" in names else ())):
        if not isinstance(text, str):
            raise DataError(f"expected texts as strings, got {text!r:.80}: drop the rows without text")
    return [
        Example(int(id), AttackedText.of(text, pair), label)
        for id, text, pair, label in zip(ids, texts, pairs, labels, strict=True)
    ]
