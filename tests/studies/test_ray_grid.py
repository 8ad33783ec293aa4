"""A sweep on a local ray cluster of two workers, one of which is killed midway."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offramp._core import cluster
from offramp._core.errors import ConfigError, MissingExtraError
from offramp._core.run_files import RunFiles
from offramp.studies import grid
from offramp.studies.grid import LOCK, is_recorded, run_grid, run_trial
from offramp.studies.training.plan import make_sweep


def holder_of(path: Path) -> int | None:
    """Process that has a file open, or None."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path:
                return int(link.parts[2])
        except OSError:
            continue
    return None


def end_first_worker(locks: list[Path], killed: list[Path], number: int) -> None:
    """Wait until a worker is well inside a trial, then send it a signal."""
    for _ in range(3000):
        time.sleep(0.1)
        for lock in locks:
            pid = holder_of(lock)
            if pid is not None and pid != os.getpid() and (lock.parent / "run" / "settings.json").exists():
                time.sleep(0.5)
                os.kill(pid, number)
                killed.append(lock.parent)
                return


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # ray's own
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_trial_is_run_again_and_no_other_twice(
    number: int, tiny_encoder: Path, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    data = tmp_path / "reviews.csv"
    rows = [f"{row['text']},{row['label']}" for split in tiny_data.values() for row in split]
    data.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    sweep = make_sweep(
        {
            "backbones": {str(tiny_encoder): [1, 4]},
            "tasks": [str(data)],
            "strategies": ["joint", "sweet"],
            "seeds": [0, 1],
            "training": {"max_steps": 120, "batch_size": 8},
        }
    )
    output, log = tmp_path / "results", tmp_path / "log"

    def logged(trial: Any, folder: Path, **options: Any) -> Any:
        with log.open("a") as file:
            file.write(f"start {trial}\n")
        status = run_trial(trial, folder, **options)
        with log.open("a") as file:
            file.write(f"{status} {trial}\n")
        return status

    monkeypatch.setattr(grid, "run_trial", logged)
    killed: list[Path] = []
    locks = [output.resolve() / trial.folder / LOCK for trial in sweep.trials]
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
    try:
        killer = threading.Thread(target=end_first_worker, args=(locks, killed, number))
        killer.start()
        statuses: dict[str, list[str]] = {}
        failed = run_grid(
            sweep,
            output,
            engine="ray",
            on_status=lambda trial, status, _: statuses.setdefault(str(trial), []).append(status),
        )
        killer.join()
    finally:
        ray.shutdown()
    assert failed == {}
    assert len(killed) == 1
    assert all(is_recorded(trial, RunFiles(output)) for trial in sweep.trials)
    assert all(reported == ["waiting", "running", "done"] for reported in statuses.values())
    lines = log.read_text().splitlines()
    for trial in sweep.trials:
        assert lines.count(f"done {trial}") == 1
        assert lines.count(f"start {trial}") == (2 if output.resolve() / trial.folder == killed[0] else 1)
    # On a cluster or not, what is recorded is not run again.
    assert run_grid(sweep, output) == {}
    assert log.read_text().splitlines() == lines


def test_without_ray_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(cluster.importlib, "import_module", missing)
    sweep = make_sweep({"backbones": ["minilm-l6"], "tasks": ["sst2"], "strategies": ["joint"]})
    with pytest.raises(MissingExtraError, match=r"offramp\[ray\]"):
        run_grid(sweep, tmp_path, engine="ray")


def test_workers_are_counted() -> None:
    machine = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0})
    assert cluster.worker_slots(machine, None) == (4, {"num_cpus": 1, "num_gpus": 0})
    machine = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0, "GPU": 2.0})
    assert cluster.worker_slots(machine, None) == (2, {"num_cpus": 1, "num_gpus": 1})
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        cluster.worker_slots(machine, 0)
