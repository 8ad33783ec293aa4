"""Conditions on the numbers of run records, for continuous integration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from offramp._core.arguments import number
from offramp._core.errors import ConfigError, unknown_name
from offramp._core.numbers import is_number
from offramp._core.paths import UserPath, user_path
from offramp._core.run_files import RunFiles
from offramp.evaluation.arrow_tables import as_table, table
from offramp.reports.records import Run, load_runs

BOUNDS = ("min", "max", "max_rise", "max_fall")
EXAMPLE = "{metric: accuracy, min: 0.8}"


@dataclass(frozen=True)
class Condition:
    """A bound on a number. If several numbers match, each must keep it.

    Args:
        metric: a metric of a record, such as `depth`; or `table.column` of a table, such as `bench.p95`. The name of
            a run's main metric, such as `accuracy`, stands for its `score`.
        where: values that runs or rows of the table must have, such as `{command: attack, recipe: same-word}`.
        min: least value.
        max: largest value.
        baseline: folder of runs to compare with, relative to the file of conditions; exactly one number must match.
        max_rise: largest amount by which the number may be above the baseline's.
        max_fall: largest amount by which it may be below.

    Raises:
        ConfigError: no bound, or bounds that no number meets.
    """

    metric: str
    where: Mapping[str, Any] = field(default_factory=dict)
    min: float | None = None
    max: float | None = None
    baseline: str | None = None
    max_rise: float | None = None
    max_fall: float | None = None

    def __post_init__(self) -> None:
        for name in ("metric", "baseline"):
            if not isinstance(getattr(self, name), str) and not (
                name == "baseline" and self.baseline is None
            ):
                raise ConfigError(f"expected a string as {name}, got {getattr(self, name)!r}")
        if not isinstance(self.where, Mapping):
            raise ConfigError(f"expected values by name as where, got {self.where!r}")
        given = [name for name in BOUNDS if getattr(self, name) is not None]
        for name in given:
            change = name.startswith("max_")
            expected = "a number of at least 0" if change else "a number"
            number(name, getattr(self, name), expected, (0.0).__le__ if change else math.isfinite)
        if not given:
            raise ConfigError(f"{self.metric} has no bound: give one of {', '.join(BOUNDS)}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(
                f"no {self.metric} is at least {self.min:g} and at most {self.max:g}: swap them"
            )
        if (self.baseline is None) == any(name.startswith("max_") for name in given):
            raise ConfigError(
                f"{self.metric}: max_rise and max_fall need a baseline, and a baseline needs them"
            )

    def limits(self, before: float | None) -> tuple[float, float]:
        """The least and the largest value, given the baseline's."""
        low = -math.inf if self.min is None else self.min
        high = math.inf if self.max is None else self.max
        if before is not None:
            low = low if self.max_fall is None else max(low, before - self.max_fall)
            high = high if self.max_rise is None else min(high, before + self.max_rise)
        return low, high


@dataclass(frozen=True)
class Outcome:
    """A condition and the matching number that is farthest from keeping it.

    Attributes:
        run: name of the run, with the row of a table.
        value: the number; NaN if it is undefined, which keeps no condition.
        low: least value allowed.
        high: largest value allowed.
        matching: how many numbers match.
    """

    condition: Condition
    run: str
    value: float
    low: float
    high: float
    matching: int

    @property
    def passed(self) -> bool:
        """Whether the number keeps the condition; all others that match then do, too."""
        return self.low <= self.value <= self.high


def read_conditions(path: UserPath) -> list[Condition]:
    """The conditions of a YAML file, a list under `conditions`.

    Raises:
        ConfigError: no such file, no YAML, no conditions, an unknown key or a wrong value.
    """
    path = user_path(path, "the file of conditions")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no conditions at {path}: give a YAML file of them") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    listed = content.get("conditions") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed or set(content) != {"conditions"}:
        raise ConfigError(f"{path} must hold a list named conditions and nothing else, such as - {EXAMPLE}")
    conditions = []
    for position, item in enumerate(listed, start=1):
        try:
            conditions.append(_condition(item, path.parent))
        except ConfigError as error:
            raise ConfigError(f"{path}, condition {position}: {error}") from error
    return conditions


def _condition(item: Any, folder: Path) -> Condition:
    if not isinstance(item, dict):
        raise ConfigError(f"expected keys such as {EXAMPLE}, got {item!r:.80}")
    for key in item:
        if key not in Condition.__dataclass_fields__:
            raise ConfigError(unknown_name("key of a condition", key, Condition.__dataclass_fields__))
    if "metric" not in item:
        raise ConfigError(f"a condition needs a metric, such as {EXAMPLE}")
    if isinstance(item.get("baseline"), str):
        item = item | {"baseline": str(folder / user_path(item["baseline"]))}
    return Condition(**item)


def check_conditions(folder: UserPath, conditions: Iterable[Condition]) -> list[Outcome]:
    """Check conditions on the runs below a folder.

    Args:
        folder: of a run, of several runs, or of packed ones.
        conditions: see `Condition`.

    Returns:
        An outcome for each condition, in order.

    Raises:
        DataError: no records below the folder, or a table that cannot be read.
        ConfigError: a condition that no number matches, with the nearest name; or a baseline that is no single number.
    """
    return [_check(folder, condition) for condition in conditions]


def _check(folder: UserPath, condition: Condition) -> Outcome:
    before = None
    if condition.baseline is not None:
        numbers = matching_numbers(condition.baseline, condition)
        if len(numbers) != 1:
            raise ConfigError(
                f"{condition.metric}: {len(numbers)} numbers of the baseline {condition.baseline} match, where one is "
                f"needed ({', '.join(name for name, _ in numbers[:5])}): add to where"
            )
        before = numbers[0][1]
    low, high = condition.limits(before)
    numbers = matching_numbers(folder, condition)

    def margin(pair: tuple[str, float]) -> float:
        return -math.inf if math.isnan(pair[1]) else min(pair[1] - low, high - pair[1])

    name, value = min(numbers, key=margin)
    return Outcome(condition, name, value, low, high, len(numbers))


def matching_numbers(folder: UserPath, condition: Condition) -> list[tuple[str, float]]:
    """The numbers that a condition is about, each with the name of its run and row.

    Raises:
        ConfigError: none matches.
    """
    runs, _ = load_runs(folder)
    root = user_path(folder)
    files = RunFiles(root if root.is_dir() else root.parent)
    table_name, _, column = condition.metric.rpartition(".")
    with_table = [run for run in runs if table_name in run.record["tables"]]
    rows = [row for run in with_table for row in _rows(run, table_name, files)]
    if not with_table:
        rows, column = [_Row(run.name, run_facts(run), run_numbers(run)) for run in runs], condition.metric
    named = [row for row in rows if column in row.numbers]
    if not named:
        raise ConfigError(unknown_name("metric", condition.metric, _metric_names(runs, rows, table_name)))
    for key, wanted in condition.where.items():
        values = {str(row.facts[key]) for row in named if key in row.facts}
        if not values:
            keys = {fact for row in named for fact in row.facts}
            raise ConfigError(unknown_name(f"key of where for {condition.metric}", key, keys))
        matching = [row for row in named if str(row.facts.get(key)) == str(wanted)]
        if not matching:
            raise ConfigError(f"{condition.metric}: {unknown_name(key, str(wanted), values)}")
        named = matching
    return [(row.name, row.numbers[column]) for row in named]


@dataclass(frozen=True)
class _Row:
    """A run, or a row of its table: what `where` may ask for, and numbers."""

    name: str
    facts: dict[str, Any]
    numbers: dict[str, float]


def _metric_names(runs: list[Run], rows: list[_Row], table_name: str) -> set[str]:
    """What a misspelt metric may have meant."""
    prefix = f"{table_name}." if any(table_name in run.record["tables"] for run in runs) else ""
    tables = {f"{name}.…" for run in runs for name in run.record["tables"]}
    return {f"{prefix}{name}" for row in rows for name in row.numbers} | (set() if prefix else tables)


def run_facts(run: Run) -> dict[str, Any]:
    """Everything about a run that `where` may ask for; nested options with dots."""
    record = run.record
    own = {
        "command": run.command,
        "name": run.name,
        "data": run.data,
        "seed": run.seed,
        "path": record["path"],
    }
    return dict(flat(record["config"])) | dict(flat(record["metrics"])) | own


def run_numbers(run: Run) -> dict[str, float]:
    """The numbers among a record's metrics."""
    metrics = run.record["metrics"]
    if isinstance(metrics.get("metric"), str) and "score" in metrics:
        metrics = {metrics["metric"]: metrics["score"]} | metrics
    return {name: number for name, value in flat(metrics) if (number := _as_number(value)) is not None}


def _as_number(value: Any) -> float | None:
    """A number, 0 or 1 for a truth value, NaN for a missing one; None for anything else."""
    if value is None:
        return math.nan
    if value in ("inf", "-inf") or isinstance(value, float | bool) or is_number(value):
        return float(value)
    return None


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by name, those of nested mappings under names with dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _rows(run: Run, name: str, files: RunFiles) -> list[_Row]:
    """The rows of a run's table."""
    if (content := run.tables.get(name)) is None:
        stored = run.record["tables"][name]
        if isinstance(stored, str):
            content = files.table(PurePosixPath(run.record["path"]).parent / stored)
        else:
            content = table(stored) if isinstance(stored, Mapping) else as_table(stored)
    facts, rows = run_facts(run), []
    for position, row in enumerate(content.to_pylist(), start=1):
        numbers = {key: value for key, cell in row.items() if (value := _as_number(cell)) is not None}
        rows.append(_Row(f"{run.name}, {name} row {position}", facts | row, numbers))
    return rows
