"""What a cell of an attack study does: tune the exit rule, attack, and record what that takes away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.errors import DataError
from offramp._core.files import atomic_write
from offramp._core.records import write_record
from offramp._core.trace import Trace
from offramp.calibration import tune
from offramp.evaluation.arrow_tables import with_column
from offramp.evaluation.fluency import Bigram, fluency_change
from offramp.evaluation.robustness import robustness
from offramp.evaluation.sanity_checks.checks import attack_doubts
from offramp.evaluation.sanity_checks.victim_probes import victim_doubts
from offramp.studies.attacks.results import FLUENCY

if TYPE_CHECKING:
    from offramp.attacks import AttackResult
    from offramp.data import TextData
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel
    from offramp.studies.attacks.plan import AttackTrial, StudyOptions
    from offramp.studies.grid import Load
    from offramp.studies.trained_models import Trained

CALIBRATION = "calibration.npz"  # beside the cells of a model
SEGMENTS = ("text", "text_pair")
PROBED = 8  # examples that the victim is probed with


def attack_model(cell: AttackTrial, output: Path, load: Load) -> None:
    """Attack one model and record it; a cell whose process died goes on with the examples that are left.

    Args:
        cell: what to attack, and how.
        output: folder of the study.
        load: gives the data of a task.
    """
    from offramp.attacks import attack

    started = datetime.now(UTC)
    data = load(cell.source)
    model = load_victim(cell.victim, data)
    policy = tuned(cell.victim, model, data, cell.criterion, cell.setting, output)
    rows = data.sample(cell.setting.split, cell.setting.examples, cell.setting.seed)
    result = attack(
        model,
        policy,
        rows,
        cell.attack.recipe,
        seed=cell.setting.seed,
        output=output / cell.folder,
        resume=True,
        similarity=cell.setting.similarity,
        progress=False,
        **cell.attack.options,
    )
    result = with_fluency(result, data, output / cell.folder)
    probed = victim_doubts(model, policy, rows.select(range(min(PROBED, len(rows)))))
    record_attack(cell, output / cell.folder, result, data.metrics[0], policy, probed, started)


def load_victim(victim: Trained, data: TextData) -> SegmentedModel:
    """The model, or `DataError` where it answers with other classes than the data has."""
    from offramp.data import check_fit
    from offramp.model import read_model

    model = read_model(victim.model, device="auto")
    check_fit(data, model.labels, model.kind, model=str(victim.model))
    return model


def tuned(
    victim: Trained,
    model: SegmentedModel,
    data: TextData,
    criterion: str,
    setting: StudyOptions,
    output: Path,
) -> Policy:
    """The policy for a criterion: always the same for a model, since all criteria share one calibration trace."""
    run = calibration_trace(model, data, output / victim.folder)
    return tune(
        run,
        criterion,
        max_accuracy_drop=setting.target.get("max_accuracy_drop"),
        max_cost=setting.target.get("max_cost"),
        metric=data.metrics[0],
        temperatures=data.kind == "classification",
    )


def calibration_trace(model: SegmentedModel, data: TextData, folder: Path) -> Trace:
    """The model's trace of the calibration split: kept in a folder, made where it is missing or of another model.

    Cells that run at the same time wait for the one that makes it.
    """
    from filelock import FileLock

    from offramp.attacks.victims.fingerprints import weights_fingerprint
    from offramp.data import fingerprint
    from offramp.inference.tracing import trace

    path, lock = folder / CALIBRATION, folder / f".{CALIBRATION}.lock"
    wanted = (weights_fingerprint(model), fingerprint(data["calibration"]))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        known = _read(path)
        if known and (known.metadata.get("weights"), known.fingerprint) == wanted:
            run = known
        else:
            run = trace(model, data["calibration"])
            run.metadata["weights"] = wanted[0]
            with atomic_write(path) as draft:
                run.save(draft)
        lock.unlink(missing_ok=True)
    return run


def _read(path: Path) -> Trace | None:
    try:
        return Trace.load(path)
    except DataError:  # not there yet, or broken: made again
        return None


def with_fluency(result: AttackResult, data: TextData, folder: Path) -> AttackResult:
    """The result with the column `fluency_change`, also in its file: see `fluency`."""
    if FLUENCY in result.table.column_names:
        return result
    texts = [text for name in SEGMENTS if name in data["train"].column_names for text in data["train"][name]]
    sides = [
        [[row[f"{side}{name}"] for name in SEGMENTS if row[name] is not None] for row in result.rows]
        for side in ("", "adversarial_")
    ]
    changes = fluency_change(Bigram(texts), *sides).tolist()
    told = replace(result, table=with_column(result.table, FLUENCY, changes))
    told.save(folder / "attack.parquet")
    return told


def drop_texts(folder: Path) -> None:
    """Leave the texts, which may not be anybody's to publish, out of the rows of a recorded attack."""
    import pyarrow.parquet as pq

    path = folder / "attack.parquet"
    if not path.is_file():
        return
    rows = pq.read_table(path)
    kept = [name for name in rows.column_names if name.removeprefix("adversarial_") not in SEGMENTS]
    with atomic_write(path) as draft:
        pq.write_table(rows.select(kept), draft)


def record_attack(
    cell: AttackTrial,
    folder: Path,
    result: AttackResult,
    metric: str,
    policy: Policy,
    probed: tuple[str, ...],
    started: datetime | None = None,
) -> dict[str, Any]:
    """Write the record of an attack whose rows are in its folder: a cell that has a record is complete.

    Args:
        cell: what was attacked.
        folder: of the cell.
        result: the attack's.
        metric: main metric of the task.
        policy: the one that was attacked.
        probed: doubts about the victim.
        started: when the cell began.

    Returns:
        The record's metrics.
    """
    found = robustness(result.table, policy.exit_layers, metric=metric, seed=cell.setting.seed)
    metrics = {
        **found.metrics,
        "metric": metric,
        "exit_layers": policy.exit_layers,
        "threshold": policy.criterion.threshold,
        "tuned": policy.target,
        "doubts": [*attack_doubts(result.table, result.metadata), *probed],
    }
    config = {"cell": cell.to_dict(), "trigger": result.metadata.get("trigger")}
    tables = {"attack": "attack.parquet"}
    write_record(
        folder,
        command="sweep",
        config=config,
        metrics=metrics,
        seed=cell.setting.seed,
        tables=tables,
        started=started,
    )
    return metrics
