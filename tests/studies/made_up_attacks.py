"""Recorded cells of an attack study that was never run: rows made up, records written by the study's own code."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from offramp.attacks.result import AttackResult
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import from_rows
from offramp.studies.attacks.plan import AttackTrial, PlannedAttack, StudyOptions
from offramp.studies.attacks.transfer_plan import TransferTrial
from offramp.studies.attacks.transfer_trial import COLUMNS, FILE
from offramp.studies.attacks.trial import record_attack
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


def made_up_cells(tasks: Any = TASKS, attacks: Any = ATTACKS) -> list[AttackTrial]:
    """Two methods, two exit rules."""
    return [
        AttackTrial(
            Trained(
                Path("results/toy"),
                f"m/{task}/{method}/nall-seed{seed}",
                "minilm-l6",
                task,
                method,
                method,
                None,
                None,
                seed,
                False,
            ),
            task,
            method,
            criterion,
            attacks[name],
            StudyOptions({"max_accuracy_drop": 0.01}, examples=40),
        )
        for task, seeds in tasks.items()
        for method, criterion, name, seed in product(
            ("joint", "sweet"), ("confidence", "patience"), attacks, seeds
        )
    ]


def made_up_rows(cell: AttackTrial, examples: int = 40) -> list[dict[str, Any]]:
    """Half of the texts leave at the first exit; so many of them go to the last one as the attack is strong."""
    rng = np.random.default_rng([cell.victim.seed, len(cell.victim.task)])
    moved = rng.random(examples) < STRENGTH.get(cell.attack.name, 0.5) * (
        0.5 if cell.method == "sweet" else 1.0
    )
    late = 2 if cell.criterion == "patience" else 1  # of four texts, how many leave at the last exit anyway
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
                gradient_queries=0 if "random" in cell.attack.recipe else 2,
                recipe=cell.attack.recipe,
                **text,
            )
        )
    return rows


def record_study(folder: Path, cells: list[AttackTrial] | None = None) -> list[AttackTrial]:
    """Write rows and record of every cell."""
    cells = made_up_cells() if cells is None else cells
    policy = Policy(make_criterion("confidence", 0.9), LAYERS)
    for cell in cells:
        metadata = {
            "kind": "classification",
            "options": cell.attack.options,
            "seed": 0,
            "recipe": cell.attack.recipe,
        }
        result = AttackResult.of(made_up_rows(cell), metadata)
        (folder / cell.folder).mkdir(parents=True)
        result.save(folder / cell.folder / "attack.parquet")
        record_attack(cell, folder / cell.folder, result, "accuracy", policy, ())
    return cells


def record_transfer(folder: Path, cells: list[AttackTrial]) -> None:
    """A transfer cell for every model: the nearer the attacked model, the more is lost."""
    from offramp._core.records import write_record
    from offramp.attacks.result import write_parquet

    for victim in dict.fromkeys(cell.victim for cell in cells):
        own = [cell for cell in cells if cell.victim == victim and cell.attack.name == "same-word"]
        sources = [c for c in cells if c.victim.task == victim.task and c.attack.name == "same-word"]
        criteria = tuple(cell.criterion for cell in own)
        to = TransferTrial(
            victim, own[0].source, own[0].method, criteria, own[0].attack, own[0].setting, tuple(sources)
        )
        rows = []
        for source, criterion in product(sources, criteria):
            near = (source.victim == victim) + (source.method == to.method) + (source.criterion == criterion)
            origin = (source.victim.task, source.method, source.criterion, source.victim.seed)
            rows.append((*origin, criterion, 40, 1.0, 2.0, 0.5, 0.5 + 0.1 * near, 0.2 * near, 0.0, 1.0))
        (folder / to.folder).mkdir(parents=True)
        write_parquet(from_rows(COLUMNS, rows), folder / to.folder / FILE)
        write_record(
            folder / to.folder,
            command="sweep",
            config={"cell": json.loads(json.dumps(to.to_dict()))},
            metrics={},
            seed=0,
            tables={"transfer": FILE},
        )
