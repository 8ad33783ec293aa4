"""The records of an attack study: every attacked model, ready to be averaged and compared."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError, unknown_name
from offramp._core.paths import UserPath, user_path
from offramp._core.run_files import RunFiles
from offramp.attacks.recipes import RECIPES
from offramp.attacks.recipes.base import Recipe
from offramp.criteria import CRITERIA
from offramp.evaluation.arrow_tables import floats, in_front, stack
from offramp.evaluation.bootstrap import Statistic, Weights
from offramp.evaluation.robustness import attack_statistic, metric_names, read_attack
from offramp.studies.training.results import trial_records
from offramp.training.strategies import STRATEGIES

if TYPE_CHECKING:
    import pyarrow as pa

FLUENCY = "fluency_change"  # a column that only studies add to the rows of an attack
# What a study reports of an attack; a score is the task's main metric.
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
    FLUENCY,
)


class AttackSetting(NamedTuple):
    """What attacks are compared at: one kind of model under one exit rule, attacked in one way."""

    backbone: str
    task: str
    method: str
    criterion: str
    attack: str  # the name that the recipe is shown by

    def __str__(self) -> str:
        return ", ".join(self)


AXES = AttackSetting._fields


@dataclass(frozen=True)
class RecordedAttack:
    """One recorded attack on one model.

    Attributes:
        strategy, seed, exit_layers: of the model.
        recipe: the attack's, with the facts that tables need.
        options: of the recipe, by the keys of records.
        rows: the attacked examples.
        metric: main metric of the task.
    """

    setting: AttackSetting
    strategy: str
    seed: int
    recipe: type[Recipe]
    options: dict[str, Any]
    rows: pa.Table = field(repr=False)
    exit_layers: tuple[int, ...]
    metric: str
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.seed}"

    @property
    def victim_and_options(self) -> tuple[AttackSetting, int, str]:
        """What comparable attacks share."""
        return self.setting._replace(attack=""), self.seed, repr(self.options)

    @cached_property
    def statistic(self) -> Statistic:
        """`NUMBERS` under any weighting of the examples."""
        whole = attack_statistic(read_attack(self.rows, self.exit_layers), self.metric)
        names = [name.replace(f"_{self.metric}", "_score") for name in metric_names(self.metric)]
        columns = [names.index(name) for name in NUMBERS if name != FLUENCY]
        has_fluency = FLUENCY in self.rows.column_names
        fluency = floats(self.rows, FLUENCY) if has_fluency else np.full(whole.examples, np.nan)

        def values(weights: Weights) -> NDArray[np.float64]:
            means = weights @ fluency / weights.sum(axis=1)
            return np.column_stack([whole.values(weights)[:, columns], means])

        # Rows may have been published without their texts.
        columns_there = [name for name in ("id", "text") if name in self.rows.column_names]
        texts = json.dumps([self.rows[name].to_pylist() for name in columns_there])
        return Statistic(NUMBERS, whole.examples, f"{zlib.crc32(texts.encode()):08x}", values)


def load_attacks(folder: UserPath) -> list[RecordedAttack]:
    """Read the attacks of a study, in the order of the tables.

    Raises:
        DataError: no attack below the folder, or one without its rows.
    """
    runs = RunFiles(folder)
    attacks = [_read(r, runs) for r in trial_records(runs) if "victim" in r["config"].get("cell", {})]
    if not attacks:
        raise DataError(
            f"no attacks of a study below {folder}: run one with 'offramp sweep configs/same-minilm.yaml'"
        )
    return sorted(attacks, key=_rank)


def is_attack_study(folder: UserPath) -> bool:
    """Whether all records below a folder are trials of an attack study."""
    records = trial_records(RunFiles(folder)) if user_path(folder).is_dir() else []
    trials = [record["config"].get("cell", {}) for record in records]
    return any("victim" in t for t in trials) and all("victim" in t or "transfer_to" in t for t in trials)


def _read(record: Mapping[str, Any], runs: RunFiles) -> RecordedAttack:
    trial, metrics = record["config"]["cell"], record["metrics"]
    victim, attack = trial["victim"], trial["attack"]
    if attack["recipe"] not in RECIPES:
        message = unknown_name("attack recipe", attack["recipe"], RECIPES)
        raise DataError(f"{runs.root / record['path']} was made by another version: {message}")
    model = {key: victim[key] for key in ("backbone", "task", "method")}
    return RecordedAttack(
        setting=AttackSetting(**model, criterion=trial["criterion"], attack=attack["name"]),
        strategy=victim["strategy"],
        seed=victim["seed"],
        recipe=RECIPES[attack["recipe"]],
        options=attack["options"],
        rows=_rows(record, "attack", runs),
        exit_layers=tuple(metrics["exit_layers"]),
        metric=metrics["metric"],
        doubts=tuple(metrics["doubts"]),
    )


def _rows(record: Mapping[str, Any], name: str, runs: RunFiles) -> pa.Table:
    """The rows that a record names, without their description."""
    folder = PurePosixPath(record["path"]).parent
    return runs.table(folder / record["tables"][name]).replace_schema_metadata(None)


def load_transfers(folder: UserPath) -> pa.Table | None:
    """The rows of all transfer trials below a folder, with the attack and the model in front; None without any."""
    runs, tables = RunFiles(folder), []
    for record in trial_records(runs):
        trial = record["config"].get("cell", {})
        if "transfer_to" in trial:
            model = {name: trial["transfer_to"][name] for name in ("backbone", "task", "method", "seed")}
            rows = _rows(record, "transfer", runs)
            tables.append(in_front(rows, {"attack": trial["attack"]["name"], **model}))
    return stack(tables) if tables else None


def order_of(name: str, names: Iterable[str]) -> tuple[int, str]:
    """A sort key: the position of a name among `names`; other names come behind, by name."""
    order = list(names)
    return order.index(name) if name in order else len(order), name


def _rank(attack: RecordedAttack) -> tuple[Any, ...]:
    backbone, task, method, criterion, name = attack.setting
    recipe = (list(RECIPES).index(attack.recipe.name), name != attack.recipe.name, name)
    strategy = (*order_of(attack.strategy, STRATEGIES), method)
    return backbone, recipe, task, strategy, order_of(criterion, CRITERIA), attack.seed
