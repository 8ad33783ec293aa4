"""Attack a data set in groups of examples, and run the adversarial texts on another model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from offramp._core import progress as display
from offramp._core.arguments import seed_number, whole
from offramp._core.errors import ConfigError
from offramp._core.paths import UserPath
from offramp.attacks.examples import Examples, halves, texts_fingerprint
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.options import DEFAULT_JUDGE, RECORD_JUDGES, Options, Preserve, Weighting
from offramp.attacks.prepared import AttackSpec, on_ray
from offramp.attacks.recipes import RECIPES, recipe_named
from offramp.attacks.recipes.base import require_classes_inside
from offramp.attacks.result import AttackResult, make_row
from offramp.attacks.search.base import Outcome, score_candidates
from offramp.attacks.search.universal import find_trigger
from offramp.attacks.store import free_folder, open_store
from offramp.attacks.text.attacked_text import AttackedText
from offramp.attacks.victims.base import QueryBudget, Victim
from offramp.attacks.victims.black_box import as_victim
from offramp.data import check_fit, fingerprint, require_split
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.model.base import SegmentedModel

if TYPE_CHECKING:
    from datasets import Dataset

Report = Callable[[int, int], None]  # examples done, examples in all
COPIED = ("words", "words_changed", "similarity", "recipe", "seed")  # what a transferred row keeps


@contextmanager
def reporting(progress: Report | bool) -> Iterator[Report]:
    """Yield a function of (done, total): `progress` itself, for True a bar or lines on stderr, for False silence."""
    if callable(progress):
        yield progress
        return
    with display.progress("attack examples", show=progress) as update:
        yield lambda done, total: update(done, total, "")


def attack(
    target: SegmentedModel | Engine | Victim | UserPath,
    data: Dataset,
    *,
    recipe: str = "same-word",
    policy: Policy | None = None,
    seed: int = 0,
    output_dir: UserPath | None = None,
    resume: bool = False,
    similarity: str = DEFAULT_JUDGE,
    batch_size: int = 64,
    group: int = 16,
    workers: int | Literal["all"] | None = None,
    progress: Report | bool = True,
    disagreement_weight: float = 0.8,
    weighting: Weighting = "growing",
    top_n: int = 100,
    top_k: int = 10,
    beam: int = 5,
    rounds: int = 10,
    max_changed_words: float | int = 0.1,
    queries: int | None = None,
    preserve: Preserve = "nothing",
    min_similarity: float | None = None,
    max_edits: int | None = None,
    grammar: bool = False,
    trigger: str = "",
    lexicon: str | None = None,
    masked_lm: str = "google-bert/bert-base-uncased",
) -> AttackResult:
    """Change the words of each example so that it leaves as late as possible.

    The result for an example depends on the target, its policy, the recipe and its options, the seed and the example's
    id. It does not depend on the other examples, their order, `batch_size` or `group` (except for float noise).
    Finished groups are written to `output_dir` and dropped from memory, so there may be any number of examples.

    Args:
        target: the victim: an `Engine` or an exported folder (black box), a model or its folder (white box), or any
            `Victim`, such as `FunctionVictim` and `GreyBox`. A recipe that takes gradients opens the torch model of an
            engine.
        data: examples with columns `id`, `text`, for pairs `text_pair`, and optionally `label`.
        recipe: a key of `RECIPES`.
        policy: when the model leaves; None for the target's own policy.
        seed: of everything that the recipe draws.
        output_dir: folder for finished groups, and finally `attack.parquet`; None keeps the result in memory.
        resume: resume the attack that `output_dir` holds.
        similarity: the judge: `universal_sentence_encoder`, `none`, or an encoder by name.
        batch_size: texts that the model runs at once.
        group: number of examples attacked and saved together.
        workers: None attacks in this process. A number uses so many workers of the Ray cluster in RAY_ADDRESS,
            or of this machine, one group at a time each. The result is the same, even if workers die.
        progress: True for a bar or lines on stderr, or a function of (examples done, examples in all).
        disagreement_weight, …, masked_lm: options of the recipe; `Options` explains each.

    Returns:
        One row per example, in the order of the data. An example that leaves at the last exit is not changed.
        'waffle-universal' without a trigger searches for one on half of the examples, and returns only the other half;
        the trigger depends on the examples.

    Raises:
        ConfigError: an unknown recipe, a bad value, an option that has no meaning for the recipe or the victim's task,
            a folder that holds another attack, or a recipe that needs more than the victim shows.
        CriterionError: the policy was made for another model.
        DataError: no examples, no texts, ids that repeat, or ids and labels that are not numbers.
    """
    options = Options(
        disagreement_weight=disagreement_weight,
        weighting=weighting,
        top_n=top_n,
        top_k=top_k,
        beam=beam,
        rounds=rounds,
        max_changed_words=max_changed_words,
        queries=queries,
        preserve=preserve,
        min_similarity=min_similarity,
        max_edits=max_edits,
        grammar=grammar,
        trigger=trigger,
        lexicon=lexicon,
        masked_lm=masked_lm,
    )
    data = require_split(data)
    folder = free_folder(output_dir)
    seed, group = seed_number(seed), whole("group", group, 1, note="examples are attacked in groups")
    if workers not in (None, "all"):
        workers = whole("workers", workers, 1, note="'all' takes as many as the cluster has")
    victim = as_victim(target, policy, batch_size, inside=recipe_named(recipe).access == "gradients")
    if victim.labels is not None:
        check_fit(data, victim.labels, victim.kind, pair=victim.pair)
    examples = Examples(data, victim.kind)
    positions, options, described = _with_trigger(victim, examples, recipe, options, seed)
    spec = AttackSpec(victim, recipe, options, seed, similarity)
    prepared = spec.prepare()  # before any folder is made
    manifest = _manifest(spec, examples, positions)
    with open_store(folder, manifest, resume=resume) as store, reporting(progress) as report:
        remaining = [position for position in positions if examples.ids[position] not in store.done]
        groups = [remaining[start : start + group] for start in range(0, len(remaining), group)]
        report(len(store.done), len(positions))
        each = (prepared.attack_group(examples.take(positions)) for positions in groups)
        for rows in each if workers is None else on_ray(spec, examples, groups, workers):
            store.add(rows)
            report(len(store.done), len(positions))
        described |= {**prepared.describe(), "data": fingerprint(data)}
        return store.finish([examples.ids[position] for position in positions], described)


def _with_trigger(
    victim: Victim, examples: Examples, recipe: str, options: Options, seed: int
) -> tuple[Sequence[int], Options, dict[str, Any]]:
    """The positions to attack, the options, and the result's facts about the search for a trigger.

    For a universal recipe without a trigger, one is searched for on one half of the examples. The other half is
    attacked.
    """
    is_universal = recipe_named(recipe).is_universal
    if options.trigger.split() and not is_universal:
        universal = next(name for name, other in RECIPES.items() if other.is_universal)
        raise ConfigError(f"a trigger is for {universal!r}, not for {recipe!r}: leave it out")
    if options.trigger.split() or not is_universal:
        return range(len(examples)), options, {}
    require_classes_inside(victim)
    searched, tested = halves(len(examples), seed)
    trigger = find_trigger(victim.white_box, [e.text for e in examples.take(searched)])
    described = {
        "trigger": asdict(trigger),
        "searched_on": [examples.ids[position] for position in searched],
    }
    return tested, replace(options, trigger=str(trigger)), described


def _manifest(spec: AttackSpec, examples: Examples, positions: Sequence[int]) -> dict[str, Any]:
    """Everything that decides the result, under the keys that records use."""
    victim = spec.victim
    labels = ((str(label),) for label in examples.labels(positions))
    return {
        "recipe": spec.recipe,
        "seed": spec.seed,
        "options": spec.options.to_record(),
        "similarity": RECORD_JUDGES.get(spec.similarity, spec.similarity),
        "kind": victim.kind,
        **victim.describe(),
        "texts": texts_fingerprint(examples.segments(positions)),
        "labels": texts_fingerprint(enumerate(labels)),
        "limits": [victim.max_forward, victim.max_gradient],
    }


def transfer(
    result: AttackResult,
    target: SegmentedModel | Engine | Victim | UserPath,
    policy: Policy | None = None,
) -> AttackResult:
    """Run the clean and the adversarial texts of an attack on another model.

    Args:
        result: the attack on the first model.
        target, policy: the other model, as for `attack`.

    Returns:
        A result with the exits, costs and predictions of the other model, without queries. Words, similarity, recipe
        and seed are those of the first attack. A text may leave earlier than its original.
    """
    victim = as_victim(target, policy)
    pairs = [
        [AttackedText.of(row[f"{side}text"], row[f"{side}text_pair"]) for side in ("", "adversarial_")]
        for row in result.rows
    ]
    answers = victim.query_many([(QueryBudget(), pair) for pair in pairs])
    rows = []
    for row, texts, replies in zip(result.rows, pairs, answers, strict=True):
        clean, adversarial = score_candidates(texts, replies, ExitDepth())
        outcome = Outcome(clean, adversarial, QueryBudget(), 0.0)
        rows.append(make_row(row["id"], row["label"], outcome) | {name: row[name] for name in COPIED})
    metadata = {**result.metadata, **victim.describe(), "transferred_from": result.metadata.get("weights")}
    return AttackResult.of(rows, {**metadata, "kind": victim.kind})
