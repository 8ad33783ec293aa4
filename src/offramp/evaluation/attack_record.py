"""The record of an attack: its robustness numbers and doubts, written beside its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.records import write_record
from offramp.evaluation.robustness import robustness
from offramp.evaluation.sanity_checks.checks import attack_doubts

if TYPE_CHECKING:
    from offramp.attacks.result import AttackResult

ROWS, ROBUSTNESS = "attack.parquet", "robustness.parquet"


def record_attack(
    result: AttackResult,
    folder: Path,
    *,
    command: str,
    config: Mapping[str, Any],
    exit_layers: Sequence[int],
    metric: str,
    details: Mapping[str, Any] | None = None,
    doubts: Sequence[str] = (),
    keep_table: bool = False,
    started: datetime | None = None,
) -> dict[str, Any]:
    """Compute the robustness numbers and doubts of an attack, write its record, and return the record's metrics.

    Args:
        result, folder: the attack, and the folder that holds its rows.
        command, config, started: as for `write_record`.
        exit_layers: of the model that was attacked.
        metric: main metric of the task.
        details: more to record among the metrics.
        doubts: more doubts, about the victim or from attacks beside this one.
        keep_table: whether the numbers with their intervals are kept as a table, too.
    """
    from offramp.attacks.result import write_parquet

    seed = int(result.metadata["seed"])
    numbers = robustness(result.table, exit_layers, metric=metric, seed=seed)
    metrics = {
        **numbers.metrics,
        "metric": metric,
        "exit_layers": exit_layers,
        **(details or {}),
        "doubts": [*attack_doubts(result.table, result.metadata), *doubts],
    }
    if keep_table:
        write_parquet(numbers.table, folder / ROBUSTNESS)
    tables = {"robustness": ROBUSTNESS, "attack": ROWS} if keep_table else {"attack": ROWS}
    write_record(
        folder, command=command, config=config, metrics=metrics, seed=seed, tables=tables, started=started
    )
    return metrics
