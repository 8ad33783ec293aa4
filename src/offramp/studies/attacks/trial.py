"""A trial of an attack study: tune an exit rule of a model, attack the model, and record the effect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from offramp._core.errors import ConfigError
from offramp._core.run_files import RunFiles
from offramp._core.text import slug
from offramp.attacks.options import Options
from offramp.attacks.recipes import recipe_named
from offramp.evaluation.arrow_tables import with_column
from offramp.evaluation.attack_record import ROWS, record_attack
from offramp.evaluation.fluency import Bigram, fluency_change
from offramp.evaluation.sanity_checks.checks import victim_doubts
from offramp.studies.attacks.results import FLUENCY
from offramp.studies.attacks.victims import VictimTrial
from offramp.studies.grid import Load

if TYPE_CHECKING:
    from offramp.attacks import AttackResult
    from offramp.data import TextData
    from offramp.engine.policy import Policy

SEGMENTS = ("text", "text_pair")
PROBED = 8  # examples that the victim is probed with


@dataclass(frozen=True, kw_only=True)
class AttackTrial(VictimTrial):
    """One attack on one model under one exit rule.

    Attributes:
        criterion: the exit rule; its threshold is tuned on the calibration split.
    """

    criterion: str

    @property
    def folder(self) -> Path:
        return Path(self.victim.folder, slug(self.criterion), slug(self.attack.name))

    @property
    def column(self) -> str:
        return self.attack.name

    def to_dict(self) -> dict[str, Any]:
        return self.describe("victim", criterion=self.criterion)

    def check(self) -> None:
        """Raise `ConfigError` for an unknown recipe or option."""
        recipe_named(self.attack.recipe)
        Options.of(**self.attack.options)

    def run(self, output: Path, load: Load) -> None:
        """Attack the model and record it; a trial whose process died resumes with the examples that are left."""
        from offramp.attacks import attack

        started = datetime.now(UTC)
        data = load(self.source)
        model = self.load_victim(data)
        policy = self.tuned(model, data, self.criterion, output)
        examples = data.sample(self.setting.split, self.setting.examples, self.setting.seed)
        result = attack(
            model,
            examples,
            recipe=self.attack.recipe,
            policy=policy,
            seed=self.setting.seed,
            output_dir=output / self.folder,
            resume=True,
            similarity=self.setting.similarity,
            progress=False,
            **self.attack.options,
        )
        result = with_fluency(result, data, output / self.folder)
        probed = victim_doubts(model, policy, examples.select(range(min(PROBED, len(examples)))))
        self.record(output, result, policy, data.metrics[0], probed, started)

    def record(
        self,
        output: Path,
        result: AttackResult,
        policy: Policy,
        metric: str,
        probed: tuple[str, ...] = (),
        started: datetime | None = None,
    ) -> None:
        """Write the record, which completes the trial; the rows are in its folder already.

        Args:
            output: folder of the study.
            policy: that was attacked.
            metric: main metric of the task.
            probed: doubts about the victim.
        """
        record_attack(
            result,
            output / self.folder,
            command="sweep",
            config={"cell": self.to_dict(), "trigger": result.metadata.get("trigger")},
            exit_layers=policy.exit_layers,
            metric=metric,
            details={"threshold": policy.criterion.threshold, "tuned": policy.target},
            doubts=probed,
            started=started,
        )

    def result(self, runs: RunFiles) -> AttackResult:
        """The attack as it was recorded; `DataError` where its rows are missing."""
        from offramp.attacks import AttackResult

        path = PurePosixPath(self.folder, ROWS)
        return AttackResult.from_table(runs.table(path), runs.root / path)

    def drop_texts(self, runs: RunFiles) -> None:
        """Delete the texts, which may not be published, from the rows; they cannot be transferred any more."""
        from offramp.attacks.result import write_parquet

        rows = runs.table(PurePosixPath(self.folder, ROWS))
        kept = [name for name in rows.column_names if name.removeprefix("adversarial_") not in SEGMENTS]
        path = runs.root / self.folder / ROWS
        if kept != rows.column_names and not path.is_file():
            raise ConfigError(
                f"{runs.root} is packed with its texts: drop them from the runs, and pack those again"
            )
        if kept != rows.column_names:
            write_parquet(rows.select(kept), path)


def with_fluency(result: AttackResult, data: TextData, folder: Path) -> AttackResult:
    """The result with the column `fluency_change`, which its file gets too: see `offramp.evaluation.fluency`."""
    if FLUENCY in result.table.column_names:
        return result
    texts = [text for name in SEGMENTS if name in data["train"].column_names for text in data["train"][name]]
    sides = [
        [[row[f"{side}{name}"] for name in SEGMENTS if row[name] is not None] for row in result.rows]
        for side in ("", "adversarial_")
    ]
    changes = fluency_change(Bigram(texts), *sides).tolist()
    extended = replace(result, table=with_column(result.table, FLUENCY, changes))
    extended.save(folder / ROWS)
    return extended
