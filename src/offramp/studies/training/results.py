"""The records of a sweep: trials by setting and method, ready for comparison."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from offramp._core import progress as display
from offramp._core.errors import DataError
from offramp._core.paths import UserPath, user_path
from offramp._core.records import FILE_NAME
from offramp._core.run_files import GRADIENT_FILE, Gradients, RunFiles
from offramp._core.trace import Trace
from offramp.criteria import Criterion, make_criterion
from offramp.evaluation.bootstrap import Interval, intervals
from offramp.evaluation.operating_points import ranking_statistic, reliability_table
from offramp.reports.reliability import pool_reliability
from offramp.studies.training.trial import RUN, with_precision
from offramp.training.options import PLAN_OPTIONS, TrainingOptions
from offramp.training.strategies import STRATEGIES

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)

METHOD = ["backbone", "method"]  # the columns that identify a method
MODEL = ["backbone", "task", "method", "train_size", "seed", "learning_rate"]  # ... and a model


@dataclass(frozen=True)
class ModelSetting:
    """A setting in which methods are compared: one encoder, task and number of training examples (None: all)."""

    backbone: str
    task: str
    train_size: int | None = None


@dataclass(frozen=True)
class Result:
    """One recorded trial.

    Attributes:
        rule: exit rule of its curve, as fitted on calibration data.
        logits_trace: over validation, with the model's own logits.
        scores: of its exits.
        temperatures: one per exit; None for regression.
        trial: its name in the sweep.
        conflict: shares of the training at which gradient conflict was measured.
        gradients: inner products of the exits' gradients by training step, where they were measured.
        protocol: how all models of its sweep were made: pooling, exits, and options of training.
        held_out: rows of `held_out_costs`, for a model with layer 0.
    """

    setting: ModelSetting
    method: str
    strategy: str
    seed: int
    learning_rate: float | None
    rule: Criterion
    metric: str
    logits_trace: Trace
    scores: tuple[float, ...]
    temperatures: tuple[float, ...] | None
    trial: str
    conflict: tuple[float, ...] = ()
    gradients: Gradients = field(default_factory=dict, repr=False)
    protocol: dict[str, Any] = field(default_factory=dict, repr=False)
    held_out: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def trace(self) -> Trace:
        """Over validation, with logits scaled by temperature."""
        return self.logits_trace.scaled(self.temperatures)

    @property
    def model(self) -> tuple[object, ...]:
        """What the models of all methods share that are compared exit by exit."""
        return self.setting, self.seed, self.trace.exit_layers


Group = dict[str, list[Result]]  # by method, in order of seed; all methods with the same seeds


def load_results(folder: UserPath) -> list[Result]:
    """Read the trials of a sweep; a model that several training sizes beyond the data stand for is returned once.

    Raises:
        DataError: no folder, no trial, or a trial without its trace.
    """
    runs = RunFiles(folder)
    records = sweep_records(runs)
    if not records:
        raise DataError(f"no trials of a sweep below {runs.root}: run one with 'offramp sweep'")
    results = [_result(record, runs) for record in records]
    return result_frame(results).drop_duplicates(MODEL)["result"].tolist()


def is_sweep(folder: UserPath) -> bool:
    """Whether all records below a folder are trials of a sweep or of their trainings, finished or not."""
    records = trial_records(RunFiles(folder), "*.json") if user_path(folder).is_dir() else []
    others = [record for record in records if not _is_trained(record)]
    return len(others) < len(records) and all(RUN in Path(record["path"]).parts[:-1] for record in others)


def sweep_records(runs: RunFiles) -> list[dict[str, Any]]:
    """The records of trained models below a folder."""
    return [record for record in trial_records(runs) if _is_trained(record)]


def records_of(folders: Iterable[UserPath]) -> list[dict[str, Any]]:
    """The records of the trained models of several studies."""
    return [record for folder in folders for record in sweep_records(RunFiles(folder))]


def _is_trained(record: Mapping[str, Any]) -> bool:
    return "method" in record["config"].get("cell", {})


def trial_records(runs: RunFiles, pattern: str = FILE_NAME) -> list[dict[str, Any]]:
    """The records below a folder whose file names match; unreadable ones are logged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        records = runs.records(pattern)
    for warning in caught:
        _LOG.warning("%s", warning.message)
    return records


def _result(record: Mapping[str, Any], runs: RunFiles) -> Result:
    trial, metrics, folder = record["config"]["cell"], record["metrics"], PurePosixPath(record["path"]).parent
    temperatures, size = metrics["temperatures"], trial["train_size"]
    if size and metrics.get("train_examples", size) < size:
        size = None
    return Result(
        setting=ModelSetting(trial["backbone"], trial["task"], size),
        method=trial["method"]["name"],
        strategy=trial["method"]["strategy"],
        seed=trial["seed"],
        learning_rate=trial["learning_rate"],
        rule=make_criterion(record["config"]["criterion"], **metrics.get("rule_options", {})),
        metric=metrics["metric"],
        logits_trace=with_precision(runs.trace(folder / metrics["trace"]), np.float32),
        scores=tuple(metrics["scores"]),
        temperatures=None if temperatures is None else tuple(temperatures),
        trial="/".join((runs.root / folder).parts[-4:]),
        conflict=tuple(trial.get("conflict", ())),
        gradients=runs.gradients(folder / GRADIENT_FILE),
        protocol=_protocol(trial, record["config"].get("training", {})),
        held_out=tuple(record.get("tables", {}).get("held_out", ())),
    )


def _protocol(trial: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep's plan sets for all its models; options that a record does not name have their defaults."""
    defaults = asdict(TrainingOptions())
    options = {name: trial["training"].get(name, defaults[name]) for name in PLAN_OPTIONS}
    pooling = trained.get("pooling") or trial["pooling"] or "default"
    return {"pooling": pooling, "exits": trained.get("exits") or trial["exits"], **options}


def result_frame(results: Iterable[Result]) -> pd.DataFrame:
    """A row per result: its setting, `method`, `seed`, `learning_rate`, `score` (mean over exits), `result`."""
    rows = [
        {
            **asdict(result.setting),
            **{name: getattr(result, name) for name in ("setting", "method", "seed", "learning_rate")},
            "score": sum(result.scores) / len(result.scores),
            "result": result,
        }
        for result in results
    ]
    return pd.DataFrame(rows, columns=[*MODEL, "setting", "score", "result"])


def rate_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Scores by learning rate: a row for each encoder, method and rate.

    Returns:
        Columns `backbone`, `method`, `learning_rate`, `score` (mean over exits, tasks and seeds), `models` (how
        many), `results` and `best`. The best rate of a method has the highest score; a rate that was tried on fewer
        tasks and seeds than another one is not a candidate, since its mean is of other things.
    """
    frame = result_frame(results)
    rates = frame.groupby([*METHOD, "learning_rate"], sort=False, dropna=False, as_index=False).agg(
        score=("score", "mean"), models=("result", "size"), results=("result", list)
    )
    methods = rates.groupby(METHOD, sort=False)
    scores = rates["score"].where(rates["models"] == methods["models"].transform("max"))
    rates["best"] = rates.index.isin(scores.groupby([rates[name] for name in METHOD]).idxmax())
    return rates


def tried_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """The rows of `rate_frame` for methods with several learning rates, in rising order of the rate."""
    rates = rates.dropna(subset="learning_rate")
    methods = rates.groupby(METHOD, sort=False)
    several = methods["learning_rate"].transform("size") > 1
    return rates.assign(order=methods.ngroup())[several].sort_values(["order", "learning_rate"])


def group_results(results: Iterable[Result]) -> tuple[dict[ModelSetting, Group], list[str]]:
    """Results by setting and method, cut to the seeds that all methods of a setting have; and what was left out.

    Methods have the same order everywhere, the baseline first. A setting without a common seed is left out.
    """
    groups: dict[ModelSetting, Group] = {}
    left_out = []
    frame = result_frame(sorted(results, key=rank))
    for setting, rows in frame.groupby("setting", sort=False):
        methods = rows.groupby("seed")["method"].nunique()
        common = rows["seed"].isin(methods.index[methods == rows["method"].nunique()])
        if not common.any():
            left_out.append(f"{setting.backbone}, {setting.task}: no seed that all methods have")
            continue
        for method, seeds in rows[~common].groupby("method", sort=False)["seed"]:
            left_out.append(
                f"{setting.backbone}, {setting.task}, {method}: seeds {seeds.tolist()}, which not all methods have"
            )
        by_method = rows[common].groupby("method", sort=False)["result"]
        groups[setting] = {method: paired.tolist() for method, paired in by_method}
    order = sorted(groups, key=lambda setting: (setting.backbone, setting.task, setting.train_size or 10**9))
    return {setting: groups[setting] for setting in order}, left_out


def reliability_by_method(groups: Mapping[ModelSetting, Group]) -> dict[tuple[str, str, str], pa.Table]:
    """Rows of `reliability_table` over all seeds, by encoder, task (and its size if there are several) and method.

    The traces are over validation, the temperatures from calibration data.
    """
    pooled = {}
    for key, results in _by_method(groups):
        tables = [reliability_table(r.logits_trace, r.temperatures) for r in results if r.temperatures]
        if tables:
            pooled[key] = pool_reliability(tables)
    return pooled


def ranking_by_method(
    groups: Mapping[ModelSetting, Group], resamples: int = 1000, *, progress: bool = False
) -> dict[tuple[str, str, str], tuple[Interval, ...]]:
    """`ranking_statistic` of every exit with intervals over seeds and examples, by encoder, task and method."""
    classifiers = [pair for pair in _by_method(groups) if pair[1][0].trace.kind == "classification"]
    return {
        key: intervals(
            [ranking_statistic(result.trace) for result in results], resamples=resamples, over="nested"
        )
        for key, results in display.track(classifiers, "rank the exits", show=progress)
    }


def _by_method(
    groups: Mapping[ModelSetting, Group],
) -> Iterator[tuple[tuple[str, str, str], list[Result]]]:
    """The results of each method under encoder, task (and its size if there are several) and method."""
    sizes = Counter((setting.backbone, setting.task) for setting in groups)
    for setting, group in groups.items():
        sized = sizes[setting.backbone, setting.task] > 1
        task = f"{setting.task}, {setting.train_size or 'all'}" if sized else setting.task
        for method, results in group.items():
            yield (setting.backbone, task, method), results


def bootstrap_seed(task: str) -> int:
    """Seed of the bootstrap on a task: it differs between tasks, so that tasks are drawn independently."""
    return zlib.crc32(repr(task).encode())


def rank(result: Result) -> tuple[int, bool, str, int]:
    """Position of a result among all: by strategy, the plain one before its variants, then by seed."""
    strategies = (*STRATEGIES, result.strategy)  # an unknown one comes last
    return strategies.index(result.strategy), result.method != result.strategy, result.method, result.seed
