"""Grids on a ray cluster: a cell a task; ray retries those whose worker died."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.cluster import PATIENCE, RETRIES, connect, worker_slots
from offramp._core.errors import OfframpError
from offramp.studies.grid import Trial, run_trial

if TYPE_CHECKING:
    from offramp.studies.grid import OnStatus


def run_on_ray(
    cells: Sequence[Trial], output: Path, *, keep_models: bool, workers: int | None, on_status: OnStatus
) -> dict[str, str]:
    """Run cells on the cluster that RAY_ADDRESS names, or on this machine.

    A cell that was killed is run again, and goes on where it was; one that has a record, or that another worker
    holds, is not. Each cell takes a processor, and a GPU where the cluster has some; at most `workers` cells are
    handed out at a time, so that none waits inside ray for long.

    Arguments and result are those of `grid.run_grid`.

    Raises:
        MissingExtraError: ray is not installed.
    """
    ray = connect()
    at_once, takes = worker_slots(ray, workers)
    remote = ray.remote(max_retries=RETRIES, **takes)(run_trial)
    waiting, running = list(cells), dict[Any, Trial]()
    failed: dict[str, str] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            cell = waiting.pop(0)
            running[remote.remote(cell, output.resolve(), keep_model=keep_models)] = cell
            on_status(cell, "running", "")
        over, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
        for task in over:
            cell = running.pop(task)
            reason = _collect(ray, task, cell, on_status)
            if reason:
                failed[str(cell)] = reason
    return failed


def _collect(ray: Any, task: Any, cell: Trial, on_status: OnStatus) -> str:
    """Why a cell failed; nothing where it did not."""
    try:
        on_status(cell, ray.get(task), "")
    except OfframpError as error:  # raised by the cell: ray passes it on as its own kind
        reason = str(getattr(error, "cause", error))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        reason = f"its worker died {RETRIES + 1} times: {str(error).splitlines()[0]}"
    else:
        return ""
    on_status(cell, "failed", reason)
    return reason
