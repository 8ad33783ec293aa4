"""What the trials of an attack study share: a trained model under attack, and its tuned exit rules."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.errors import DataError
from offramp._core.files import atomic_write
from offramp._core.to_json import to_json
from offramp._core.trace import Trace
from offramp.attacks.options import DEFAULT_JUDGE, RECORD_JUDGES, to_record
from offramp.calibration import tune
from offramp.studies.grid import Trial
from offramp.studies.trained_models import Trained

if TYPE_CHECKING:
    from offramp.data import TextData
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

CALIBRATION = "calibration.npz"  # beside the trials of a model


@dataclass(frozen=True)
class PlannedAttack:
    """A recipe with its options, under the name it is shown by.

    Attributes:
        name: `same-word`, or a name of its own, such as `lambda-0`.
        recipe: a key of `offramp.attacks.RECIPES`.
        options: of `Options`, those that differ from its defaults.
    """

    name: str
    recipe: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyOptions:
    """What all attacks of a study share.

    Attributes:
        target: of the tuning: `max_accuracy_drop` or `max_cost`, and its value.
        examples: attacked of each model, chosen by `seed`: the same for all models of a task.
        split: that the examples are taken from.
        seed: of the choice of examples, and of what a recipe draws.
        similarity: judge of how close a text stays to its original.
    """

    target: dict[str, float]
    examples: int = 100
    split: str = "validation"
    seed: int = 0
    similarity: str = DEFAULT_JUDGE


@dataclass(frozen=True, kw_only=True)
class VictimTrial(Trial):
    """A trial on one trained model.

    Attributes:
        source: task of the model, as `load_data` takes it.
        method: name of the model in the study.
    """

    victim: Trained
    source: str
    method: str
    attack: PlannedAttack
    setting: StudyOptions

    @property
    def row(self) -> str:
        return f"{self.victim.backbone}, {self.victim.task}, {self.method}"

    def describe(self, victim_key: str, **own: Any) -> dict[str, Any]:
        """The trial as its record keeps it: by the keys of records, without the folder of the sweep.

        Args:
            victim_key: that the model is recorded under.
            own: what else the trial records.
        """
        victim = {**asdict(self.victim), "sweep": self.victim.sweep.name, "method": self.method}
        del victim["gates"]
        judge = RECORD_JUDGES.get(self.setting.similarity, self.setting.similarity)
        content = {
            victim_key: victim,
            "attack": {**asdict(self.attack), "options": to_record(self.attack.options)},
            "setting": {**asdict(self.setting), "similarity": judge},
            **own,
        }
        return {key: to_json(value) for key, value in content.items()}

    def load_victim(self, data: TextData) -> SegmentedModel:
        """Load the model; `DataError` if its classes are not those of the data."""
        from offramp.data import check_fit
        from offramp.model import read_model

        model = read_model(self.victim.model, device="auto")
        check_fit(data, model.labels, model.kind, pair=model.pair, model=str(self.victim.model))
        return model

    def tuned(self, model: SegmentedModel, data: TextData, criterion: str, output: Path) -> Policy:
        """The policy of an exit rule; all rules of a model are tuned on the same calibration trace."""
        return tune(
            calibration_trace(model, data, output / self.victim.folder),
            criterion,
            max_accuracy_drop=self.setting.target.get("max_accuracy_drop"),
            max_cost=self.setting.target.get("max_cost"),
            metric=data.metrics[0],
            temperatures=data.kind == "classification",
        )


def calibration_trace(model: SegmentedModel, data: TextData, folder: Path) -> Trace:
    """The model's trace of the calibration split, read from a folder or made and kept there.

    A trace of another model or other data is made anew. Trials that run at the same time wait for the first of them.
    """
    from filelock import FileLock

    from offramp.attacks.victims.white_box import weights_fingerprint
    from offramp.data import fingerprint
    from offramp.inference.tracing import trace

    path, lock = folder / CALIBRATION, folder / f".{CALIBRATION}.lock"
    weights, examples = weights_fingerprint(model), fingerprint(data["calibration"])
    folder.mkdir(parents=True, exist_ok=True)
    run = None
    with FileLock(lock):
        with suppress(DataError):  # a missing or broken trace is made anew
            run = Trace.load(path)
        if run is None or (run.metadata.get("weights"), run.fingerprint) != (weights, examples):
            run = trace(model, data["calibration"])
            run.metadata["weights"] = weights
            with atomic_write(path) as draft:
                run.save(draft)
        lock.unlink(missing_ok=True)
    return run
