"""Recorded trials of an attack study that never ran: rows made up, records written by the study's own code."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from offramp.attacks.options import to_record
from offramp.attacks.recipes import RECIPES
from offramp.attacks.result import AttackResult
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import from_rows
from offramp.studies.attacks.transfer import COLUMNS, ROWS, transfer_trials
from offramp.studies.attacks.trial import AttackTrial
from offramp.studies.attacks.victims import PlannedAttack, StudyOptions
from offramp.studies.trained_models import Trained
from tests.evaluation.made_up import LAYERS, attack_row

ATTACKS = {
    "same-word": PlannedAttack("same-word", "same-word"),
    "words-1": PlannedAttack("words-1", "same-word", {"max_changed_words": 1}),
    "textfooler-last": PlannedAttack("textfooler-last", "textfooler-last"),
    "random-word": PlannedAttack("random-word", "random-word"),
}
STRENGTH = {"same-word": 0.8, "words-1": 0.4, "textfooler-last": 0.0, "random-word": 0.1}
TASKS = {"sst2": (0, 1), "rte": (0, 1)}


def made_up_trials(tasks: Any = TASKS, attacks: Any = ATTACKS) -> list[AttackTrial]:
    """Two methods, two exit rules."""
    axes = (("joint", "sweet"), ("confidence", "patience"), attacks)
    return [
        AttackTrial(
            victim=made_up_model(task, method, seed),
            source=task,
            method=method,
            criterion=criterion,
            attack=attacks[name],
            setting=StudyOptions({"max_accuracy_drop": 0.01}, examples=40),
        )
        for task, seeds in tasks.items()
        for method, criterion, name, seed in product(*axes, seeds)
    ]


def made_up_model(task: str, method: str, seed: int) -> Trained:
    return Trained(
        sweep=Path("results/toy"),
        folder=f"m/{task}/{method}/nall-seed{seed}",
        backbone="minilm-l6",
        task=task,
        method=method,
        strategy=method,
        train_size=None,
        learning_rate=None,
        seed=seed,
        gates=False,
    )


def made_up_rows(trial: AttackTrial, examples: int = 40) -> list[dict[str, Any]]:
    """Half of the texts leave at the first exit; the stronger the attack, the more of them move to the last exit."""
    rng = np.random.default_rng([trial.victim.seed, len(trial.victim.task)])
    moved = rng.random(examples) < STRENGTH.get(trial.attack.name, 0.5) * (
        0.5 if trial.method == "sweet" else 1.0
    )
    late = 2 if trial.criterion == "patience" else 1  # of four texts, how many leave at the last exit anyway
    rows = []
    for i in range(examples):
        clean = 2 if i % 4 < late else 0
        after = 2 if moved[i] else clean
        text = {
            "adversarial_text": "a fine film" if after != clean else "a good film",
            "words_changed": int(after != clean),
        }
        rows.append(
            attack_row(
                clean,
                after,
                id=i,
                words=3,
                gradient_queries=0 if RECIPES[trial.attack.recipe].is_baseline else 2,
                recipe=trial.attack.recipe,
                **text,
            )
        )
    return rows


def record_study(folder: Path, trials: list[AttackTrial] | None = None) -> list[AttackTrial]:
    """Write rows and record of every trial."""
    trials = made_up_trials() if trials is None else trials
    policy = Policy(make_criterion("confidence", 0.9), LAYERS)
    for trial in trials:
        metadata = {
            "kind": "classification",
            "options": to_record(trial.attack.options),
            "seed": 0,
            "recipe": trial.attack.recipe,
        }
        result = AttackResult.of(made_up_rows(trial), metadata)
        (folder / trial.folder).mkdir(parents=True)
        result.save(folder / trial.folder / "attack.parquet")
        trial.record(folder, result, policy, "accuracy")
    return trials


def record_transfer(folder: Path, trials: list[AttackTrial]) -> None:
    """A transfer trial for every model: the nearer the attacked model, the more is lost."""
    from offramp._core.records import write_record
    from offramp.attacks.result import write_parquet

    for to in transfer_trials([trial for trial in trials if trial.attack.name == "same-word"]):
        victim, sources, criteria = to.victim, to.attacks, to.criteria
        rows = []
        for source, criterion in product(sources, criteria):
            near = (source.victim == victim) + (source.method == to.method) + (source.criterion == criterion)
            origin = (source.victim.task, source.method, source.criterion, source.victim.seed)
            rows.append((*origin, criterion, 40, 1.0, 2.0, 0.5, 0.5 + 0.1 * near, 0.2 * near, 0.0, 1.0))
        (folder / to.folder).mkdir(parents=True)
        write_parquet(from_rows(COLUMNS, rows), folder / to.folder / ROWS)
        write_record(
            folder / to.folder,
            command="sweep",
            config={"cell": json.loads(json.dumps(to.to_dict()))},
            metrics={},
            seed=0,
            tables={"transfer": ROWS},
        )
