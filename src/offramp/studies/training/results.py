"""The records of a sweep: cells by place and method, ready to be compared."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.errors import DataError
from offramp._core.records import FILE_NAME, read_records
from offramp._core.trace import Trace
from offramp.criteria import Criterion, make_criterion
from offramp.evaluation.per_exit import reliability_table
from offramp.reports.reliability import pool_reliability
from offramp.studies.training.plan import RUN
from offramp.studies.training.trial import expand

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)

# Strategies in the order in which they are told; the first one there is the baseline.
ORDER = (
    "joint",
    "multi_model",
    "sweet",
    "two_stage",
    "alternating",
    "self_distill",
    "mixed",
    "gradient_equilibrium",
    "pcgrad",
)


@dataclass(frozen=True)
class Result:
    """One recorded cell.

    Attributes:
        backbone, task, method, seed, learning_rate: of the cell.
        train_size: of the cell; None where it took all there are, whether or not more were asked for.
        strategy: that the method uses.
        rule: exit rule of its curve, with what was fitted on calibration data.
        metric: main metric of the task.
        trace: over validation, logits scaled by temperature.
        scores: of its exits.
        temperatures: one an exit; None for regression.
        folder: of the cell.
        conflict: shares of the training at which gradient conflict was measured.
    """

    backbone: str
    task: str
    method: str
    train_size: int | None
    seed: int
    learning_rate: float | None
    strategy: str
    rule: Criterion
    metric: str
    trace: Trace
    scores: tuple[float, ...]
    temperatures: tuple[float, ...] | None
    folder: Path
    conflict: tuple[float, ...] = ()

    @property
    def cell(self) -> str:
        """Its name in the sweep."""
        return "/".join(self.folder.parts[-4:])

    @property
    def mean_score(self) -> float:
        """Over its exits."""
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class ModelSetting:
    """Where methods are compared: the same encoder, task and number of training examples."""

    backbone: str
    task: str
    train_size: int | None = None

    @property
    def seed(self) -> int:
        """Of the bootstrap: another one for each task, so that tasks are drawn independently."""
        return zlib.crc32(repr(self.task).encode())


Group = dict[str, list[Result]]  # by method, in order of seed; all methods with the same seeds


def load_results(folder: str | Path) -> list[Result]:
    """Read the cells of a sweep.

    Raises:
        DataError: no folder, no cell, or a cell without its trace.
    """
    root = Path(folder)
    cells = sweep_records(root)
    if not cells:
        raise DataError(f"no cells of a sweep below {root}: run one with 'offramp sweep'")
    # Sizes that exceed the data ask for the same models: each is told once.
    found = [_result(record, (root / record["path"]).parent) for record in cells]
    return list({_model(one): one for one in reversed(found)}.values())[::-1]


def _model(one: Result) -> tuple[object, ...]:
    return one.backbone, one.task, one.method, one.train_size, one.seed, one.learning_rate


def is_sweep(folder: str | Path) -> bool:
    """Whether all records below a folder are cells of a sweep, or of the training of one, finished or not."""
    records = trial_records(Path(folder), "*.json") if Path(folder).is_dir() else []
    rest = [record for record in records if not _is_trained(record)]
    return len(rest) < len(records) and all(RUN in Path(record["path"]).parts[:-1] for record in rest)


def sweep_records(root: Path) -> list[dict[str, Any]]:
    """The records of trained cells below a folder."""
    return [record for record in trial_records(root) if _is_trained(record)]


def _is_trained(record: Mapping[str, Any]) -> bool:
    return "cell" in record["config"] and "method" in record["config"]["cell"]


def trial_records(root: Path, pattern: str = FILE_NAME) -> list[dict[str, Any]]:
    """The records below a folder, of cells unless told otherwise; those that cannot be read are logged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = read_records(root, pattern)
    for warning in caught:
        _LOG.warning("%s", warning.message)
    return records


def _result(record: Mapping[str, Any], folder: Path) -> Result:
    cell, metrics = record["config"]["cell"], record["metrics"]
    trace = expand(Trace.load(folder / metrics["trace"]))
    temperatures, asked = metrics["temperatures"], cell["train_size"]
    return Result(
        **{key: cell[key] for key in ("backbone", "task", "seed", "learning_rate")},
        train_size=None if asked and metrics.get("train_examples", asked) < asked else asked,
        method=cell["method"]["name"],
        strategy=cell["method"]["strategy"],
        rule=make_criterion(record["config"]["criterion"], **metrics.get("rule_options", {})),
        metric=metrics["metric"],
        trace=trace.scaled(temperatures),
        scores=tuple(metrics["scores"]),
        temperatures=None if temperatures is None else tuple(temperatures),
        folder=folder,
        conflict=tuple(cell.get("conflict", ())),
    )


def by_rate(results: Sequence[Result]) -> dict[tuple[str, str], dict[float | None, list[Result]]]:
    """Results by encoder and method, then by learning rate."""
    found: dict[tuple[str, str], dict[float | None, list[Result]]] = {}
    for one in results:
        rates = found.setdefault((one.backbone, one.method), {})
        rates.setdefault(one.learning_rate, []).append(one)
    return found


def best_rates(results: Sequence[Result]) -> dict[tuple[str, str], float | None]:
    """The learning rate with the highest mean score over exits, tasks and seeds, by encoder and method.

    A rate that has been tried on fewer tasks and seeds than another one is left out: its mean is of other things.
    """
    best = {}
    for key, rates in by_rate(results).items():
        most = max(map(len, rates.values()))
        whole = {rate: ones for rate, ones in rates.items() if len(ones) == most}
        best[key] = max(whole, key=lambda rate: sum(one.mean_score for one in whole[rate]) / most)
    return best


def group_results(results: Iterable[Result]) -> tuple[dict[ModelSetting, Group], list[str]]:
    """Results by place and method, cut to the seeds that all methods of a place have; and what was left out.

    Methods come in one order everywhere, the baseline first. A place without a common seed is left out.
    """
    found: dict[ModelSetting, Group] = {}
    for one in sorted(results, key=rank):
        place = ModelSetting(one.backbone, one.task, one.train_size)
        found.setdefault(place, {}).setdefault(one.method, []).append(one)
    left_out = []
    for place, group in list(found.items()):
        common = set.intersection(*({one.seed for one in ones} for ones in group.values()))
        if not common:
            left_out.append(f"{place.backbone}, {place.task}: no seed that all methods have")
            del found[place]
            continue
        for method, ones in group.items():
            if lost := [one.seed for one in ones if one.seed not in common]:
                left_out.append(
                    f"{place.backbone}, {place.task}, {method}: seeds {lost}, which not all methods have"
                )
                group[method] = [one for one in ones if one.seed in common]
    order = sorted(found, key=lambda p: (p.backbone, p.task, p.train_size or 10**9))
    return {place: found[place] for place in order}, left_out


def reliability_by_method(groups: Mapping[ModelSetting, Group]) -> dict[tuple[str, str, str], pa.Table]:
    """Rows of `reliability_table` over all seeds, by encoder, task (with its size where there are several) and method.

    The traces are over validation, the temperatures from calibration data.
    """
    tasks = [(place.backbone, place.task) for place in groups]
    found = {}
    for place, group in groups.items():
        sized = tasks.count((place.backbone, place.task)) > 1
        task = f"{place.task}, {place.train_size or 'all'}" if sized else place.task
        for method, ones in group.items():
            tables = [reliability_table(unscaled(one), one.temperatures) for one in ones if one.temperatures]
            if tables:
                found[place.backbone, task, method] = pool_reliability(tables)
    return found


def unscaled(one: Result) -> Trace:
    """The trace of a cell with its logits as the model gave them."""
    return one.trace.scaled(one.temperatures and [1 / t for t in one.temperatures])


def rank(one: Result) -> tuple[int, bool, str, int]:
    """The place of a result among all: by strategy, the plain one before its variants, then by seed."""
    known = ORDER.index(one.strategy) if one.strategy in ORDER else len(ORDER)
    return known, one.method != one.strategy, one.method, one.seed
