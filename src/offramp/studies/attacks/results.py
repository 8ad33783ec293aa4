"""The records of an attack study: every attacked model, ready to be summed up and compared."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, unknown_name
from offramp.attacks.recipes import RECIPES
from offramp.evaluation.arrow_tables import floats, in_front, stack
from offramp.evaluation.attack_table import read_attack
from offramp.evaluation.bootstrap import Statistic, Weights
from offramp.evaluation.robustness import attack_statistic, metric_names
from offramp.studies.training.results import ORDER, trial_records

if TYPE_CHECKING:
    import pyarrow as pa

# What is told of an attack; a score is the task's main metric.
NUMBERS = (
    "clean_depth",
    "adversarial_depth",
    "clean_cost",
    "adversarial_cost",
    "clean_score",
    "adversarial_score",
    "words_changed",
    "similarity",
    "forward_queries",
    "gradient_queries",
    "seconds",
    "success",
    "reached_last",
    "fluency_change",
)
FLUENCY = "fluency_change"  # a column of the study's own, see `fluency`
CRITERIA = ("confidence", "entropy", "patience", "learned", "vote")


@dataclass(frozen=True)
class AttackSetting:
    """Where attacks are compared: one model's kind under one exit rule, attacked in one way.

    Attributes:
        backbone, task, method, criterion: of the victim.
        attack: the name under which the recipe is shown.
    """

    backbone: str
    task: str
    method: str
    criterion: str
    attack: str

    @property
    def seed(self) -> int:
        """Of the bootstrap: another one for each task, so that tasks are drawn independently."""
        return zlib.crc32(repr(self.task).encode())


@dataclass(frozen=True)
class Attacked:
    """One recorded attack on one model.

    Attributes:
        place: where it belongs.
        strategy: that the method uses.
        seed: of the model.
        recipe: a key of `offramp.attacks.RECIPES`.
        options: of the recipe.
        rows: the attacked examples.
        exit_layers: of the model.
        metric: main metric of the task.
        doubts: of its record.
    """

    place: AttackSetting
    strategy: str
    seed: int
    recipe: str
    options: dict[str, Any]
    rows: pa.Table = field(repr=False)
    exit_layers: tuple[int, ...]
    metric: str
    doubts: tuple[str, ...]

    @cached_property
    def statistic(self) -> Statistic:
        """`NUMBERS` under any weighting of the examples."""
        whole = attack_statistic(read_attack(self.rows, self.exit_layers), self.metric)
        known = [name.replace(f"_{self.metric}", "_score") for name in metric_names(self.metric)]
        columns = [known.index(name) for name in NUMBERS if name != FLUENCY]
        fluency = np.full(whole.examples, np.nan)
        if FLUENCY in self.rows.column_names:
            fluency = floats(self.rows, FLUENCY)

        def values(weights: Weights) -> NDArray[np.float64]:
            means = weights @ fluency / weights.sum(axis=1)
            return np.column_stack([whole.values(weights)[:, columns], means])

        # Rows may have been published without their texts.
        told = [name for name in ("id", "text") if name in self.rows.column_names]
        texts = json.dumps([self.rows[name].to_pylist() for name in told])
        return Statistic(NUMBERS, whole.examples, f"{zlib.crc32(texts.encode()):08x}", values)


def load_attacked(folder: str | Path) -> list[Attacked]:
    """Read the attacks of a study, in the order in which they are told.

    Raises:
        DataError: no attack below the folder, or one without its rows.
    """
    root = Path(folder)
    found = [_attacked(r, root) for r in trial_records(root) if "victim" in r["config"].get("cell", {})]
    if not found:
        raise DataError(
            f"no attacks of a study below {root}: run one with 'offramp sweep configs/same-minilm.yaml'"
        )
    return sorted(found, key=_rank)


def is_attack_study(folder: str | Path) -> bool:
    """Whether all records below a folder are cells of an attack study."""
    records = trial_records(Path(folder)) if Path(folder).is_dir() else []
    cells = [record["config"].get("cell", {}) for record in records]
    return any("victim" in c for c in cells) and all("victim" in c or "transfer_to" in c for c in cells)


def _attacked(record: Mapping[str, Any], root: Path) -> Attacked:
    cell, metrics = record["config"]["cell"], record["metrics"]
    victim, attack = cell["victim"], cell["attack"]
    if attack["recipe"] not in RECIPES:
        message = unknown_name("attack recipe", attack["recipe"], RECIPES)
        raise DataError(f"{root / record['path']} was made with a recipe of another version: {message}")
    return Attacked(
        place=AttackSetting(
            victim["backbone"], victim["task"], victim["method"], cell["criterion"], attack["name"]
        ),
        strategy=victim["strategy"],
        seed=victim["seed"],
        recipe=attack["recipe"],
        options=attack["options"],
        rows=_rows(root / record["path"], record["tables"]["attack"]),
        exit_layers=tuple(metrics["exit_layers"]),
        metric=metrics["metric"],
        doubts=tuple(metrics["doubts"]),
    )


def _rows(record: Path, name: str) -> pa.Table:
    import pyarrow.parquet as pq

    path = record.parent / name
    if not path.is_file():
        raise DataError(f"{path} is missing: delete {record}, and run the study again")
    return pq.read_table(path).replace_schema_metadata(None)


def load_transfers(folder: str | Path) -> pa.Table | None:
    """The rows of all transfer cells below a folder: those of `transfer_cell`, with the model in front."""
    root, found = Path(folder), []
    for record in trial_records(root):
        cell = record["config"].get("cell", {})
        if "transfer_to" in cell:
            to = cell["transfer_to"]
            front = {name: to[name] for name in ("backbone", "task", "method", "seed")}
            rows = _rows(root / record["path"], record["tables"]["transfer"])
            found.append(in_front(rows, {"attack": cell["attack"]["name"], **front}))
    return stack(found) if found else None


def order_of(name: str, known: Sequence[str]) -> tuple[int, str]:
    """The place of a name among those that are known; others come behind, by name."""
    return known.index(name) if name in known else len(known), name


def _rank(one: Attacked) -> tuple[Any, ...]:
    place = one.place
    attack = (*order_of(one.recipe, list(RECIPES)), place.attack != one.recipe, place.attack)
    method = (*order_of(one.strategy, ORDER), place.method)
    return place.backbone, attack, place.task, method, order_of(place.criterion, CRITERIA), one.seed
