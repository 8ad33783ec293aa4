"""Start ray, which is optional and imported here only."""

from __future__ import annotations

import importlib
from typing import Any

from offramp._core.errors import ConfigError, MissingExtraError

RETRIES = 3  # of a task whose worker died
PATIENCE = 5.0  # seconds to wait for a task


def connect() -> Any:
    """The module `ray`, connected to the cluster in RAY_ADDRESS, or started on this machine."""
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return ray


def worker_slots(ray: Any, workers: int | None) -> tuple[int, dict[str, int]]:
    """The number of workers that run at once, and the resources of each: a processor, and a GPU if any."""
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}: leave it out for as many as fit")
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    at_once = workers or gpus or max(1, int(resources.get("CPU", 1)))
    return at_once, {"num_cpus": 1, "num_gpus": min(gpus, 1)}
