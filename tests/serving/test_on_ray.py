"""The service on a local Ray cluster, with a replica killed under load."""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from offramp.inference.engine import Engine

from .running import Running


def replica_processes() -> list[int]:
    """Process numbers of the replicas."""
    numbers = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ServeReplica:offramp" in path.read_bytes():
                numbers.append(int(path.parent.name))
        except OSError:
            continue
    return numbers


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # ray's own
def test_a_killed_replica_is_replaced(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.serve")
    from offramp.serving.on_ray import deploy, ray_serve
    from offramp.serving.service import Limits

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        options: Any = {"batch_size": 4, "threads": 1}
        deploy(
            [f"m={exported}"], options, Limits(), {}, host="127.0.0.1", port=port, replicas=2, show_exits=True
        )
        server = Running(port, None, None)  # type: ignore[arg-type]
        expected = Engine(exported, threads=1).predict("a good film")

        def ask(number: int) -> int:
            status, reply = server.post("/v1/classify", {"texts": ["a good film"]})
            if status == 200:
                assert reply["answers"][0]["label"] == expected.label
            time.sleep(0.02)
            return status

        assert server.post("/predict", {"inputs": []})[0] == 422
        replicas = replica_processes()
        assert len(replicas) == 2
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(ask, number) for number in range(300)]
            time.sleep(1)
            os.kill(replicas[0], signal.SIGKILL)
            statuses = [future.result() for future in futures]
        assert statuses[:20] == [200] * 20
        # Only what the killed process held can fail.
        assert sum(status != 200 for status in statuses) <= 4
        assert statuses[-20:] == [200] * 20
    finally:
        ray_serve().shutdown()
        ray.shutdown()
