"""A grid of trials, here or on a cluster: each runs once and is recorded; a recorded one does not run again."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from offramp._core.cluster import PATIENCE, RETRIES, connect, worker_slots
from offramp._core.errors import ConfigError, OfframpError, unknown_name
from offramp._core.files import check_writable
from offramp._core.paths import UserPath, user_path
from offramp._core.records import FILE_NAME, write_text
from offramp._core.run_files import RunFiles
from offramp._core.run_folder import FolderInUseError, RunFolder
from offramp._core.stopping import Stopped

if TYPE_CHECKING:
    from offramp.data import TextData

T = TypeVar("T")

LOCK = ".lock"
PLANNED = "planned.txt"  # the trials of the last grid that ran in a folder: they tell whether it is complete
KEPT_IN_MEMORY = 8  # data sets

Engine = Literal["local", "ray"]
Status = Literal["waiting", "running", "done", "failed", "elsewhere"]
Load = Callable[[str], "TextData"]


class Trial(ABC):
    """One run of a study: it knows its folder and its settings, and runs itself.

    Attributes:
        stage: trials of a stage run after those of all earlier stages.
    """

    stage: ClassVar[int] = 0

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where its record goes, below the grid's folder."""

    @property
    @abstractmethod
    def row(self) -> str:
        """Its row in a table of all trials."""

    @property
    @abstractmethod
    def column(self) -> str:
        """Its column there; trials of a column take about the same time."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The trial as its record keeps it, under `cell` in the config; it does not depend on the folder."""

    @abstractmethod
    def check(self) -> None:
        """Raise an `OfframpError` for settings that cannot run."""

    @abstractmethod
    def run(self, output: Path, load: Load) -> None:
        """Do the work, or resume it, and write the record last: `output` is the grid's folder."""

    def tidy(self, output: Path) -> None:  # noqa: B027
        """Delete what is kept on demand only, such as a trained model; by default nothing."""

    def drop_texts(self, runs: RunFiles) -> None:  # noqa: B027
        """Delete the texts of the data from the recorded rows; by default nothing."""

    def __str__(self) -> str:
        return self.folder.as_posix()


OnStatus = Callable[[Trial, Status, str], None]  # the trial, its status, and the reason of a failure


@dataclass(frozen=True)
class Plan:
    """A named set of trials; `ConfigError` for two trials with the same folder.

    Attributes:
        trials: in the order in which they run: seed by seed, so that an unfinished study is balanced.
    """

    name: str
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        for folder, count in Counter(str(trial) for trial in self.trials).items():
            if count > 1:
                raise ConfigError(
                    f"two trials are the same ({folder}): give different names, sizes and seeds"
                )


def short(name: str) -> str:
    """The name of a model or data set; of an absolute path, its last component."""
    path = user_path(name)
    return path.name if path.is_absolute() else name


def run_grid(
    plan: Plan,
    output: UserPath,
    *,
    engine: Engine = "local",
    keep_models: bool = False,
    workers: int | None = None,
    on_status: OnStatus = lambda trial, status, reason: None,
) -> dict[str, str]:
    """Run every trial that has no record yet.

    Args:
        output: folder of the grid; each trial has its own folder below it.
        engine: `local`, one trial after another in this process; or `ray`, on a cluster whose machines share the
            folder.
        keep_models: keep what a trial deletes at its end, such as a trained model.
        workers: for ray, trials at once; by default as many as the cluster has processors (or GPUs) for.
        on_status: called whenever the status of a trial changes.

    Returns:
        Reasons by trial, for those that failed; they run again when the grid does.

    Raises:
        OfframpError: an unknown engine, a trial that cannot run, or a folder that holds other trials of these names.
    """
    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    folder = user_path(output, "output")
    check_trials(plan.trials)
    check_writable(folder)
    write_text(folder / PLANNED, "".join(f"{trial}\n" for trial in plan.trials))
    runs, stages = RunFiles(folder), dict[int, list[Trial]]()
    for trial in plan.trials:
        done = is_recorded(trial, runs)
        on_status(trial, "done" if done else "waiting", "")
        if not done:
            stages.setdefault(trial.stage, []).append(trial)
    failed: dict[str, str] = {}
    for _, trials in sorted(stages.items()):
        failed |= ENGINES[engine](trials, folder, keep_models, workers, on_status)
    return failed


def _run_here(
    trials: Sequence[Trial], folder: Path, keep_models: bool, workers: int | None, on_status: OnStatus
) -> dict[str, str]:
    """Run trials one after another."""
    from offramp.data import load_data

    load, failed = lru_cache(KEPT_IN_MEMORY)(load_data), {}
    for trial in trials:
        on_status(trial, "running", "")
        try:
            on_status(trial, run_trial(trial, folder, keep_model=keep_models, load=load), "")
        except OfframpError as error:
            failed[str(trial)] = str(error)
            on_status(trial, "failed", str(error))
    return failed


def _run_on_ray(
    trials: Sequence[Trial], folder: Path, keep_models: bool, workers: int | None, on_status: OnStatus
) -> dict[str, str]:
    """Run trials on the cluster that RAY_ADDRESS names, or on this machine.

    Ray runs a killed trial again, and the trial resumes. Each trial takes a processor, and a GPU if the cluster has
    any; at most `workers` trials are submitted at a time, so that none waits inside ray for long.
    """
    ray = connect()
    at_once, resources = worker_slots(ray, workers)
    remote = ray.remote(max_retries=RETRIES, **resources)(_in_worker(run_trial))
    waiting, running = list(trials), dict[Any, Trial]()
    failed: dict[str, str] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            trial = waiting.pop(0)
            running[remote.remote(trial, folder.resolve(), keep_model=keep_models)] = trial
            on_status(trial, "running", "")
        finished, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
        for task in finished:
            trial = running.pop(task)
            try:
                on_status(trial, ray.get(task), "")
                continue
            except OfframpError as error:  # ray wraps what the trial raised
                reason = str(getattr(error, "cause", error))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
                reason = f"its worker died {RETRIES + 1} times: {str(error).splitlines()[0]}"
            failed[str(trial)] = reason
            on_status(trial, "failed", reason)
    return failed


def _in_worker(run: Callable[..., T]) -> Callable[..., T]:
    """The function for a worker, which a signal ends: Ray runs a task again if its worker dies, not if it raises."""

    def ended(*args: Any, **options: Any) -> T:
        try:
            return run(*args, **options)
        except Stopped as error:  # the checkpoint is written
            os._exit(128 + error.number)

    return ended


ENGINES = {"local": _run_here, "ray": _run_on_ray}


def missing_trials(output: UserPath) -> list[str]:
    """The trials planned in a folder that have no record; none if the folder holds no plan."""
    runs = RunFiles(output)
    path = runs.root / PLANNED
    planned = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [trial for trial in planned if runs.record(f"{trial}/{FILE_NAME}") is None]


def check_trials(trials: Sequence[Trial]) -> None:
    """Raise an `OfframpError` for names and options that no trial can run with."""
    for trial in trials:
        trial.check()


def is_recorded(trial: Trial, runs: RunFiles) -> bool:
    """Whether a trial has a record, loose or packed; `ConfigError` if its folder holds another trial."""
    record = runs.record(PurePosixPath(trial.folder, FILE_NAME))
    if record is None:
        return False
    trial_folder(trial, runs.root).refuse_other(record["config"].get("cell", {}), trial.to_dict())
    return True


def trial_folder(trial: Trial, output: Path) -> RunFolder:
    """The folder of a trial."""
    return RunFolder(output / trial.folder, "trial", mark="cell", lock_file=LOCK)


def run_trial(
    trial: Trial, output: Path, *, keep_model: bool = False, load: Load | None = None
) -> Literal["done", "elsewhere"]:
    """Run and record one trial, unless it is recorded; "elsewhere" if another process runs it.

    Args:
        trial: what to run; it resumes if its process was killed.
        keep_model: keep what the trial deletes at its end.
        load: loads the data of a task; `load_data` by default.
    """
    from offramp.data import load_data

    try:
        with trial_folder(trial, output).lock():
            if not is_recorded(trial, RunFiles(output)):
                trial.run(output, load or load_data)
            if not keep_model:
                trial.tidy(output)
    except FolderInUseError:
        return "elsewhere"
    return "done"
