"""A trial of a transfer matrix: run the texts of attacks on many models on one model, under all of its exit rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.records import write_record
from offramp._core.run_files import RunFiles
from offramp._core.text import slug
from offramp._core.trace import Trace
from offramp.attacks.recipes import recipe_named
from offramp.evaluation.arrow_tables import from_rows
from offramp.evaluation.bootstrap import Statistic, Weights, intervals
from offramp.evaluation.robustness import efficiency_drop
from offramp.studies.attacks.trial import AttackTrial
from offramp.studies.attacks.victims import VictimTrial
from offramp.studies.grid import Load, is_recorded
from offramp.studies.trained_models import Trained

if TYPE_CHECKING:
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

TRANSFER = "transfer"
ROWS = "transfer.parquet"
NUMBERS = ("clean_depth", "adversarial_depth", "clean_cost", "adversarial_cost", "efficiency_drop")
SOURCE = ("source_task", "source_method", "source_criterion", "source_seed")
COLUMNS = (*SOURCE, "criterion", "examples", *NUMBERS, "low", "high")

Texts = list[tuple[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class TransferTrial(VictimTrial):
    """The texts of one attack on all models, run on one model under each of its exit rules.

    Attributes:
        criteria: the exit rules.
        attacks: the trials whose texts are taken: those on models of the same encoder and task; if the recipe is
            universal, of every task.
    """

    stage: ClassVar[int] = 1  # after all attacks

    criteria: tuple[str, ...]
    attacks: tuple[AttackTrial, ...]

    @property
    def folder(self) -> Path:
        return Path(self.victim.folder, TRANSFER, slug(self.attack.name))

    @property
    def column(self) -> str:
        return f"{self.attack.name}, {TRANSFER}"

    def to_dict(self) -> dict[str, Any]:
        folders = [attack.folder.as_posix() for attack in self.attacks]
        return self.describe("transfer_to", criteria=self.criteria, attacks=folders)

    def check(self) -> None:
        """Do nothing: the attacks are checked."""

    def run(self, output: Path, load: Load) -> None:
        """Run the texts of all attacks on the model, and record how deep it goes on them.

        The model runs once over all texts and all of its exits; every exit rule is then applied to that trace.
        `DataError` for an attack that is not recorded yet.
        """
        from offramp.attacks.result import write_parquet

        started, runs = datetime.now(UTC), RunFiles(output)
        for attack in self.attacks:
            if not is_recorded(attack, runs):
                raise DataError(
                    f"{attack} has not been attacked yet: run the study again, its attacks come first"
                )
        data = load(self.source)
        model = self.load_victim(data)
        policies = [self.tuned(model, data, criterion, output) for criterion in self.criteria]
        pairs = [self._texts(attack, runs) for attack in self.attacks]
        traces = trace_all(model, [texts for pair in pairs for texts in pair])
        rows = [
            (
                *(attack.victim.task, attack.method, attack.criterion, attack.victim.seed),
                *(criterion, len(clean), *_numbers(clean, adversarial, policy)),
            )
            for attack, clean, adversarial in zip(self.attacks, traces[::2], traces[1::2], strict=True)
            for criterion, policy in zip(self.criteria, policies, strict=True)
        ]
        folder = output / self.folder
        write_parquet(from_rows(COLUMNS, rows), folder / ROWS)
        write_record(
            folder,
            command="sweep",
            config={"cell": self.to_dict()},
            metrics={"examples": len(pairs[0][0]), "exit_layers": model.exit_layers},
            seed=self.setting.seed,
            tables={"transfer": ROWS},
            started=started,
        )

    def _texts(self, attack: AttackTrial, runs: RunFiles) -> tuple[Texts, Texts]:
        """The clean and adversarial texts of an attack; a universal one puts its words in front of the model's own."""
        result = attack.result(runs)
        if not recipe_named(attack.attack.recipe).is_universal:
            return _texts(result.rows, ""), _texts(result.rows, "adversarial_")
        own = next(trial for trial in self.attacks if trial.victim == self.victim)
        words = str(result.metadata["options"]["trigger"])
        clean = _texts(own.result(runs).rows, "")
        return clean, [(f"{words} {text}", pair) for text, pair in clean]


def transfer_trials(attacks: Sequence[AttackTrial]) -> list[TransferTrial]:
    """A trial for each model and attack of a study."""
    groups: dict[tuple[Trained, str], list[AttackTrial]] = {}
    for trial in attacks:
        groups.setdefault((trial.victim, trial.attack.name), []).append(trial)
    return [
        TransferTrial(
            victim=victim,
            source=own[0].source,
            method=own[0].method,
            attack=own[0].attack,
            setting=own[0].setting,
            criteria=tuple(trial.criterion for trial in own),
            attacks=tuple(trial for trial in attacks if _reaches(trial, own[0])),
        )
        for (victim, _), own in groups.items()
    ]


def _reaches(trial: AttackTrial, own: AttackTrial) -> bool:
    """Whether the texts, or the words in front, of an attack can be run on the model of another one."""
    if (trial.attack.name, trial.victim.backbone) != (own.attack.name, own.victim.backbone):
        return False
    return recipe_named(trial.attack.recipe).is_universal or trial.victim.task == own.victim.task


def _texts(rows: Sequence[dict[str, Any]], side: str) -> Texts:
    if rows and "text" not in rows[0]:
        raise DataError("the texts of this attack were dropped: delete its record, and run the study again")
    return [(row[f"{side}text"], row[f"{side}text_pair"]) for row in rows]


def trace_all(model: SegmentedModel, groups: Sequence[Texts]) -> list[Trace]:
    """A trace for each group of texts; a text that is in several groups runs once."""
    from datasets import Dataset

    from offramp.inference.tracing import trace

    rows = {key: row for row, key in enumerate(dict.fromkeys(key for texts in groups for key in texts))}
    columns: dict[str, list[str | None]] = {"text": [text for text, _ in rows]}
    if any(pair is not None for _, pair in rows):
        columns["text_pair"] = [pair for _, pair in rows]
    run = trace(model, Dataset.from_dict(columns))
    return [run.take(np.array([rows[key] for key in texts])) for texts in groups]


def _numbers(clean: Trace, adversarial: Trace, policy: Policy) -> tuple[float, ...]:
    """`NUMBERS`, and the interval of the last one over the examples."""
    sides = [(policy.decide(run), run.full_flops) for run in (clean, adversarial)]

    def values(weights: Weights) -> NDArray[np.float64]:
        depth = [weights @ d.layer / weights.sum(axis=1) for d, _ in sides]
        cost = [(weights @ d.flops) / (weights @ full) for d, full in sides]
        return np.stack([*depth, *cost, efficiency_drop(*cost)], axis=1)

    estimates = intervals(Statistic(NUMBERS, len(clean), "", values))
    return (*(interval.estimate for interval in estimates), estimates[-1].low, estimates[-1].high)
