"""`offramp attack`: edit words so that the model runs as deep as possible, and report the savings lost."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from offramp._core.errors import ConfigError, OfframpError
from offramp._core.progress import console
from offramp.attacks.options import DEFAULT_JUDGE
from offramp.attacks.recipes import RECIPES
from offramp.cli.common import (
    DataOptions,
    JsonFlag,
    RuleOptions,
    Threads,
    emit,
    heading,
    limit_threads,
    note,
    show,
)
from offramp.cli.paths import PathOption, results_folder, writing
from offramp.cli.victims import ExampleOptions, SearchOptions, choose_attack_target

if TYPE_CHECKING:
    from offramp.attacks import AttackResult
    from offramp.cli.victims import AttackTarget

SHOWN = 3
PROBED = 8  # examples that the victim is asked about again
REPORTED = (
    "clean_depth",
    "adversarial_depth",
    "clean_cost",
    "adversarial_cost",
    "efficiency_drop",
    "gain_drop",
    "words_changed",
    "similarity",
    "forward_queries",
    "gradient_queries",
    "seconds",
)


def recipe_help() -> str:
    """The recipes by what they want."""
    baselines = [name for name, recipe in RECIPES.items() if recipe.is_baseline]
    goals = {
        goal: [name for name, recipe in RECIPES.items() if recipe.goal == goal and not recipe.is_baseline]
        for goal in ("slowdown", "misclassification")
    }
    return (
        f"slowdown: {', '.join(goals['slowdown'])}; accuracy attacks: {', '.join(goals['misclassification'])}; "
        f"random edits, which an attack must beat: {', '.join(baselines)}."
    )


def attack(
    model: PathOption,
    data: str,
    *,
    recipe: Annotated[str, Parameter(help=recipe_help())] = "same-word",
    rule: RuleOptions = RuleOptions(),
    chosen: ExampleOptions = ExampleOptions(),
    batch_size: int = 64,
    group: int = 16,
    similarity: str = DEFAULT_JUDGE,
    search: SearchOptions = SearchOptions(),
    restart: bool = False,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Attack a model's savings: edit a few words of each text so that it leaves as late as possible.

    For example `offramp attack runs/sweet movies --recipe same-word --examples 100`. Repeat the command to resume a
    stopped run.

    Args:
        model: folder that `offramp train` wrote.
        data: the data whose texts are attacked.
        batch_size: texts that the model runs at once.
        group: number of examples attacked and saved together.
        similarity: judge of the similarity to the original: universal_sentence_encoder, none, or an encoder by name.
        restart: delete the results of a run with other options from the folder.
        engine: local, in this process; or ray, on the cluster that RAY_ADDRESS names or on this machine, a group
            of examples at a time.
        workers: number of Ray processes; by default as many as fit.
        output: folder of the results; by default `attack-RECIPE` inside the model's folder.
    """
    limit_threads(threads)
    if engine == "local" and workers is not None:
        raise ConfigError("--workers is for --engine ray: in this process one attack runs at a time")
    from offramp.attacks import attack as run
    from offramp.attacks.store import AttackFolder
    from offramp.model.card import update_card

    started, folder = datetime.now(UTC), results_folder(model, f"attack-{recipe}", output)
    device = "cpu" if engine == "ray" else "auto"  # workers have devices of their own
    with writing(folder, "attack"):
        target = choose_attack_target(model, data, reading, rule, chosen, device)
        if restart:
            AttackFolder(folder).discard()
        result = run(
            target.model,
            target.rows,
            recipe=recipe,
            policy=target.policy,
            seed=chosen.seed,
            output_dir=folder,
            resume=True,
            batch_size=batch_size,
            group=group,
            similarity=similarity,
            workers=(workers or "all") if engine == "ray" else None,
            **vars(search),
        )
        config = {"data": data, "split": chosen.split, "recipe": recipe, **target.described(search)}
        try:
            metrics = record(result, target, folder, config, started)
        except OfframpError:
            show(f"{model.name}, {recipe}: not recorded", [result.summary()])
            raise
        update_card(model)
    show_attack(result, metrics, target.data.metrics[0], f"{model.name}, {recipe}")
    note(f"attack: {folder}")
    emit(json, metrics)


def record(
    result: AttackResult, target: AttackTarget, folder: Path, config: dict[str, Any], started: datetime
) -> dict[str, Any]:
    """Probe the victim, compare the attack with those beside it, and record it; the record's metrics."""
    from offramp.evaluation.attack_record import record_attack
    from offramp.evaluation.sanity_checks.checks import victim_doubts
    from offramp.evaluation.sanity_checks.random_baseline import random_baseline_beside

    probe = target.rows.select(range(min(PROBED, len(target.rows))))
    probed = victim_doubts(target.model, target.policy, probe)
    return record_attack(
        result,
        folder,
        command="attack",
        config=config,
        exit_layers=target.model.exit_layers,
        metric=target.data.metrics[0],
        details={"labels": list(target.model.labels)},  # reports show the names of the classes
        doubts=[*probed, *random_baseline_beside(folder)],
        keep_table=True,
        started=started,
    )


def show_attack(result: AttackResult, metrics: dict[str, Any], metric: str, title: str) -> None:
    """The numbers, and the examples that were slowed down most."""
    from offramp.attacks import diff_text

    names = (f"clean_{metric}", f"adversarial_{metric}", *REPORTED)
    values = [{"": heading(name), "value": metrics[name]} for name in names if name in metrics]
    show(f"{title}: means per example", values)
    rows = sorted(result.rows, key=lambda row: row["clean_layer"] - row["adversarial_layer"])
    for row in rows[:SHOWN]:
        if row["success"]:
            console.print(diff_text(row))
    for doubt in metrics["doubts"]:
        note(doubt)
