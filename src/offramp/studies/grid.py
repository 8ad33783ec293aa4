"""A grid of cells, here or on a cluster: each is run once and recorded; what is recorded is not run again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from offramp._core.errors import ConfigError, OfframpError, unknown_name
from offramp._core.records import FILE_NAME, read_record, write_text
from offramp._core.run_folder import FolderInUseError, RunFolder

if TYPE_CHECKING:
    from offramp.data import TextData

LOCK = ".lock"
PLANNED = "planned.txt"  # the cells of the last grid that was run in a folder, so that others know if it is complete
ENGINES = ("local", "ray")
KEPT_IN_MEMORY = 8  # data sets

Status = Literal["waiting", "running", "done", "failed", "elsewhere"]
Load = Callable[[str], "TextData"]


class Trial(ABC):
    """One thing to be run, once: it knows its folder, what it is, and how to run itself.

    Attributes:
        stage: cells of a stage are run when all of the stages before have been.
    """

    stage: ClassVar[int] = 0

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where its record goes, below the grid's folder."""

    @property
    @abstractmethod
    def row(self) -> str:
        """Its row on a board of all cells."""

    @property
    @abstractmethod
    def column(self) -> str:
        """Its column there; cells of a column take about the same time."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The cell as its record keeps it, under `cell` in the config: the same from whatever folder it is run."""

    @abstractmethod
    def check(self) -> None:
        """Raise an `OfframpError` for what cannot run."""

    @abstractmethod
    def run(self, output: Path, load: Load) -> None:
        """Do the work, or go on with it, and write the record last.

        Args:
            output: the grid's folder.
            load: gives the data of a task.
        """

    def tidy(self, output: Path) -> None:
        """Delete what is only worth keeping on demand; nothing, unless a kind of cell says what."""
        return

    def drop_texts(self, output: Path) -> None:
        """Delete texts of the data from what is recorded; nothing, unless a kind of cell keeps any."""
        return

    def __str__(self) -> str:
        return self.folder.as_posix()


OnStatus = Callable[[Trial, Status, str], None]  # cell, what became of it, a sentence where it failed


class Plan(Protocol):
    """A named set of cells."""

    @property
    def name(self) -> str:
        """Results go to `results/NAME` unless told otherwise."""

    @property
    def cells(self) -> Sequence[Trial]:
        """In the order in which they are run."""


def run_grid(
    plan: Plan,
    output: str | Path,
    *,
    engine: str = "local",
    keep_models: bool = False,
    workers: int | None = None,
    watch: OnStatus = lambda cell, status, reason: None,
) -> dict[str, str]:
    """Run every cell that has no record yet.

    Args:
        plan: of `plans.read_plan`.
        output: folder of the grid; each cell has a folder of its own below it.
        engine: `local`, one cell after another in this process; or `ray`, on a cluster (its machines must share
            the folder).
        keep_models: keep what a cell would delete in the end, such as a trained model.
        workers: for ray, cells at once; by default as many as the cluster has processors for.
        watch: is told about every cell, once what it is doing changes.

    Returns:
        Reasons by cell, for those that failed; they are tried again when the grid is run again.

    Raises:
        OfframpError: an unknown engine, a cell that cannot run, or a folder that holds other cells of these names.
    """
    if engine not in ENGINES:
        raise ConfigError(unknown_name("engine", engine, ENGINES))
    folder = Path(output)
    check_trials(plan.cells)
    write_text(folder / PLANNED, "".join(f"{cell}\n" for cell in plan.cells))
    left: dict[int, list[Trial]] = {}
    for cell in plan.cells:
        done = is_recorded(cell, folder)
        watch(cell, "done" if done else "waiting", "")
        if not done:
            left.setdefault(cell.stage, []).append(cell)
    failed: dict[str, str] = {}
    for stage in sorted(left):
        if engine == "ray":
            from offramp.studies.ray_grid import run_on_ray

            failed |= run_on_ray(left[stage], folder, keep_models=keep_models, workers=workers, watch=watch)
        else:
            failed |= _run_here(left[stage], folder, keep_models, watch)
    return failed


def _run_here(cells: Sequence[Trial], folder: Path, keep_models: bool, watch: OnStatus) -> dict[str, str]:
    from offramp.data import load_data

    load, failed = lru_cache(KEPT_IN_MEMORY)(load_data), {}
    for cell in cells:
        watch(cell, "running", "")
        try:
            watch(cell, run_trial(cell, folder, keep_model=keep_models, load=load), "")
        except OfframpError as error:
            failed[str(cell)] = str(error)
            watch(cell, "failed", str(error))
    return failed


def missing_trials(output: str | Path) -> list[str]:
    """The cells planned in a folder that have no record; none where nothing tells what was planned."""
    folder = Path(output)
    path = folder / PLANNED
    planned = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [cell for cell in planned if not (folder / cell / FILE_NAME).exists()]


def check_trials(cells: Sequence[Trial]) -> None:
    """Raise an `OfframpError` for names and options that no cell can run with."""
    for cell in cells:
        cell.check()


def is_recorded(cell: Trial, output: Path) -> bool:
    """Whether a cell has been run; `ConfigError` where its folder holds another one."""
    folder = trial_folder(cell, output)
    if not folder.recorded:
        return False
    stored = read_record(folder.path / FILE_NAME)["config"].get("cell", {})
    folder.refuse_other(stored, cell.to_dict())
    return True


def trial_folder(cell: Trial, output: Path) -> RunFolder:
    """The folder of a trial; its record keeps its settings."""
    return RunFolder(output / cell.folder, "trial", mark="cell", lock_file=LOCK)


def run_trial(
    cell: Trial, output: Path, *, keep_model: bool = False, load: Load | None = None
) -> Literal["done", "elsewhere"]:
    """Run and record one cell, unless that has been done or is being done.

    Args:
        cell: what to run; one whose process died goes on where it was.
        output: folder of the grid.
        keep_model: keep what it would delete in the end.
        load: gives the data of a task; `load_data` by default.

    Returns:
        "done", or "elsewhere" where another process holds the cell.
    """
    from offramp.data import load_data

    try:
        with trial_folder(cell, output).lock():
            if not is_recorded(cell, output):
                cell.run(output, load or load_data)
            if not keep_model:
                cell.tidy(output)
    except FolderInUseError:
        return "elsewhere"
    return "done"
