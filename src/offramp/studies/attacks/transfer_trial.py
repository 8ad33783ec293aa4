"""What a cell of a transfer matrix does: run the texts of many attacks on one model, all exit rules at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp._core.records import write_record
from offramp._core.trace import Trace
from offramp.evaluation.arrow_tables import from_rows
from offramp.evaluation.bootstrap import Statistic, Weights, intervals
from offramp.evaluation.robustness import efficiency_drop
from offramp.studies.attacks.transfer_plan import UNIVERSAL
from offramp.studies.attacks.trial import load_victim, tuned
from offramp.studies.grid import is_recorded

if TYPE_CHECKING:
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel
    from offramp.studies.attacks.plan import AttackTrial
    from offramp.studies.attacks.transfer_plan import TransferTrial
    from offramp.studies.grid import Load

FILE = "transfer.parquet"
NUMBERS = ("clean_depth", "adversarial_depth", "clean_cost", "adversarial_cost", "efficiency_drop")
SOURCE = ("source_task", "source_method", "source_criterion", "source_seed")
COLUMNS = (*SOURCE, "criterion", "examples", *NUMBERS, "low", "high")

Texts = list[tuple[str, str | None]]


def transfer_to(cell: TransferTrial, output: Path, load: Load) -> None:
    """Run the texts of all attacks on one model, and record how deep it goes on them.

    The model runs once over all texts and all of its exits; every exit rule is then read off that trace.

    Args:
        cell: the model and the attacks.
        output: folder of the study, in which the attacks are recorded.
        load: gives the data of a task.

    Raises:
        DataError: an attack that is not recorded yet.
    """
    from offramp.attacks.result import write_parquet

    started = datetime.now(UTC)
    for attack in cell.attacks:
        if not is_recorded(attack, output):
            raise DataError(
                f"{attack} has not been attacked yet: run the study again, its attacks come first"
            )
    data = load(cell.source)
    model = load_victim(cell.victim, data)
    policies = [tuned(cell.victim, model, data, c, cell.setting, output) for c in cell.criteria]
    pairs = [carried(cell, attack, output) for attack in cell.attacks]
    runs = trace_all(model, [texts for pair in pairs for texts in pair])
    rows = [
        (*_origin(attack), name, len(pair[0]), *_numbers(runs[2 * i], runs[2 * i + 1], policy))
        for i, (attack, pair) in enumerate(zip(cell.attacks, pairs, strict=True))
        for name, policy in zip(cell.criteria, policies, strict=True)
    ]
    folder = output / cell.folder
    write_parquet(from_rows(COLUMNS, rows), folder / FILE)
    write_record(
        folder,
        command="sweep",
        config={"cell": cell.to_dict()},
        metrics={"examples": len(pairs[0][0]), "exit_layers": model.exit_layers},
        seed=cell.setting.seed,
        tables={"transfer": FILE},
        started=started,
    )


def carried(cell: TransferTrial, attack: AttackTrial, output: Path) -> tuple[Texts, Texts]:
    """Clean and adversarial texts: the attack's own; of a trigger, the model's examples with its words in front."""
    from offramp.attacks import AttackResult

    theirs = AttackResult.load(output / attack.folder)
    if attack.attack.recipe != UNIVERSAL:
        return _texts(theirs.rows, ""), _texts(theirs.rows, "adversarial_")
    own = next(a for a in cell.attacks if a.victim == cell.victim)
    words = str(theirs.metadata["options"]["trigger"])
    clean = _texts(AttackResult.load(output / own.folder).rows, "")
    return clean, [(f"{words} {text}", pair) for text, pair in clean]


def _texts(rows: Sequence[dict[str, Any]], side: str) -> Texts:
    if rows and "text" not in rows[0]:
        raise DataError("the texts of this attack were dropped: delete its record, and run the study again")
    return [(row[f"{side}text"], row[f"{side}text_pair"]) for row in rows]


def trace_all(model: SegmentedModel, groups: Sequence[Texts]) -> list[Trace]:
    """A trace for each group of texts; what stands in several groups is run once."""
    from datasets import Dataset

    from offramp.inference.tracing import trace

    places: dict[tuple[str, str | None], int] = {}
    for texts in groups:
        for key in texts:
            places.setdefault(key, len(places))
    columns: dict[str, list[str | None]] = {"text": [text for text, _ in places]}
    if any(pair is not None for _, pair in places):
        columns["text_pair"] = [pair for _, pair in places]
    run = trace(model, Dataset.from_dict(columns))
    return [run.take(np.array([places[key] for key in texts])) for texts in groups]


def _origin(attack: AttackTrial) -> tuple[Any, ...]:
    return attack.victim.task, attack.method, attack.criterion, attack.victim.seed


def _numbers(clean: Trace, adversarial: Trace, policy: Policy) -> tuple[float, ...]:
    """`NUMBERS`, and the interval of the last one over the examples."""
    sides = [(policy.decide(run), run.full_flops) for run in (clean, adversarial)]

    def values(weights: Weights) -> NDArray[np.float64]:
        depth = [weights @ d.layer / weights.sum(axis=1) for d, _ in sides]
        cost = [(weights @ d.flops) / (weights @ full) for d, full in sides]
        return np.stack([*depth, *cost, efficiency_drop(*cost)], axis=1)

    found = intervals(Statistic(NUMBERS, len(clean), "", values))
    return (*(one.estimate for one in found), found[-1].low, found[-1].high)
