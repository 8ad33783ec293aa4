"""Grids on a ray cluster: a cell a task; ray retries those whose worker died."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.errors import MissingExtraError, OfframpError
from offramp.evaluation.grid import GridCell, run_cell

if TYPE_CHECKING:
    from offramp.evaluation.grid import Watch

RETRIES = 3  # of a cell whose worker died
PATIENCE = 5.0  # seconds between two looks


def run_on_ray(
    cells: Sequence[GridCell], output: Path, *, keep_models: bool, workers: int | None, watch: Watch
) -> dict[str, str]:
    """Run cells on the cluster that RAY_ADDRESS names, or on this machine.

    A cell that was killed is run again, and goes on where it was; one that has a record, or that another worker
    holds, is not. Each cell takes a processor, and a GPU where the cluster has some; at most `workers` cells are
    handed out at a time, so that none waits inside ray for long.

    Arguments and result are those of `grid.run_grid`.

    Raises:
        MissingExtraError: ray is not installed.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    remote = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=min(gpus, 1))(run_cell)
    at_once = workers or gpus or max(1, int(resources.get("CPU", 1)))
    waiting, running = list(cells), dict[Any, GridCell]()
    failed: dict[str, str] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            cell = waiting.pop(0)
            running[remote.remote(cell, output.resolve(), keep_model=keep_models)] = cell
            watch(cell, "running", "")
        over, _ = ray.wait(list(running), num_returns=1, timeout=PATIENCE)
        for task in over:
            cell = running.pop(task)
            reason = _collect(ray, task, cell, watch)
            if reason:
                failed[str(cell)] = reason
    return failed


def _collect(ray: Any, task: Any, cell: GridCell, watch: Watch) -> str:
    """Why a cell failed; nothing where it did not."""
    try:
        watch(cell, ray.get(task), "")
    except OfframpError as error:  # raised by the cell: ray passes it on as its own kind
        reason = str(getattr(error, "cause", error))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        reason = f"its worker died {RETRIES + 1} times: {str(error).splitlines()[0]}"
    else:
        return ""
    watch(cell, "failed", reason)
    return reason
