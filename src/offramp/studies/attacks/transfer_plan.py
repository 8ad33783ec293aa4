"""Cells of a transfer matrix: the texts found against every model of a study, run on one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from offramp._core.to_json import to_json
from offramp.attacks.recipes import recipe_named
from offramp.studies.attacks.plan import (
    AttackTrial,
    PlannedAttack,
    StudyOptions,
    describe,
    describe_attack,
    describe_setting,
)
from offramp.studies.grid import Load, Trial
from offramp.studies.names import slug
from offramp.studies.trained_models import Trained

TRANSFER = "transfer"


@dataclass(frozen=True)
class TransferTrial(Trial):
    """The texts that one recipe found against all models, run on one model under each of its exit rules.

    Attributes:
        victim: the model that they are run on.
        source: its task, as `load_data` takes it.
        method: what the model is called in the study.
        criteria: its exit rules.
        attack: the recipe.
        setting: as of the attacks.
        attacks: the attacks whose texts are taken: those on models of the same encoder and task, of
            `waffle-universal` those of any task.
    """

    stage: ClassVar[int] = 1  # after all attacks

    victim: Trained
    source: str
    method: str
    criteria: tuple[str, ...]
    attack: PlannedAttack
    setting: StudyOptions
    attacks: tuple[AttackTrial, ...]

    @property
    def folder(self) -> Path:
        """Where its record goes: below the model's folder."""
        return Path(self.victim.folder, TRANSFER, slug(self.attack.name))

    @property
    def row(self) -> str:
        """Encoder, task and method."""
        return f"{self.victim.backbone}, {self.victim.task}, {self.method}"

    @property
    def column(self) -> str:
        """The recipe, carried over."""
        return f"{self.attack.name}, {TRANSFER}"

    def to_dict(self) -> dict[str, Any]:
        """The cell as its record keeps it."""
        content = to_json(
            {
                "transfer_to": describe(self.victim, self.method),
                "criteria": self.criteria,
                "attack": describe_attack(self.attack),
                "setting": describe_setting(self.setting),
                "attacks": [cell.folder.as_posix() for cell in self.attacks],
            }
        )
        assert isinstance(content, dict)
        return content

    def check(self) -> None:
        """Nothing that the attacks have not checked."""

    def run(self, output: Path, load: Load) -> None:
        """See `transfer_cell.transfer_to`."""
        from offramp.studies.attacks.transfer_trial import transfer_to

        transfer_to(self, output, load)

    def __str__(self) -> str:
        return self.folder.as_posix()


def transfer_trials(attacks: Sequence[AttackTrial]) -> list[TransferTrial]:
    """A cell for each model and recipe of a study."""
    found: dict[tuple[Trained, str], list[AttackTrial]] = {}
    for cell in attacks:
        found.setdefault((cell.victim, cell.attack.name), []).append(cell)
    return [
        TransferTrial(
            victim,
            own[0].source,
            own[0].method,
            tuple(cell.criterion for cell in own),
            own[0].attack,
            own[0].setting,
            tuple(cell for cell in attacks if _reaches(cell, own[0])),
        )
        for (victim, _), own in found.items()
    ]


def _reaches(cell: AttackTrial, own: AttackTrial) -> bool:
    """Whether the texts, or the words in front, of an attack mean something for a model."""
    if cell.attack.name != own.attack.name or cell.victim.backbone != own.victim.backbone:
        return False
    return recipe_named(cell.attack.recipe).is_universal or cell.victim.task == own.victim.task
