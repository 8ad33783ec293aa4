"""A real server whose clients have a budget, and whose metrics say what happened."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from offramp.cli.watching import WatchOptions
from offramp.engine.batching import token_counts
from offramp.inference.engine import Engine
from offramp.serving.service import Service

from .running import running

TEXTS = ["a good film", "the plot is dull and slow"] * 4


def sample(text: str, name: str, **labels: str) -> float:
    """A sample of Prometheus' text format."""
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    (value,) = re.findall(rf"^{name}\{{{re.escape(wanted)}\}} (\S+)$", text, flags=re.MULTILINE)
    return float(value)


def serve(engine: Engine, budget: float, **options: Any) -> tuple[Service, Any]:
    """A service whose clients may use as many FLOPs as some full runs of `TEXTS` need, and no more."""
    full = engine.segments.flops(token_counts(engine.encoder(TEXTS)))[1].sum()
    options = {"client_rate": 1e-3, "client_burst": budget * full, "drift": False, **options}
    hooks = WatchOptions(**options).watch({"movies": engine}, ["alice", "bob"])
    return Service({"movies": engine}, hooks=hooks), hooks


def test_a_client_beyond_its_budget_leaves_earlier_and_then_waits(engine: Engine) -> None:
    service, _ = serve(engine, 2.5)
    keys = {"alice": "a" * 20, "bob": "b" * 20}
    with running(service, keys) as server:
        statuses = []
        layers: list[int] = []
        for _ in range(40):
            status, answer, headers = server.send(
                "POST", "/v1/classify", {"texts": TEXTS}, authorization=f"Bearer {keys['alice']}"
            )
            statuses.append(status)
            if status == 429:
                break
            layers += [row["exit_layer"] for row in answer["answers"]]
        assert statuses[:3] == [200, 200, 200]
        assert statuses[-1] == 429
        assert int(headers["retry-after"]) >= 1
        status, _, _ = server.send(
            "POST", "/v1/classify", {"texts": TEXTS}, authorization=f"Bearer {keys['bob']}"
        )
        assert status == 200  # the other client has a budget of its own
        _, text, _ = server.send("GET", "/metrics", authorization=f"Bearer {keys['alice']}")
    metrics = text.decode()
    answered = statuses.count(200)
    assert sample(metrics, "offramp_requests_total", client="alice", model="movies", status="200") == answered
    assert sample(metrics, "offramp_requests_total", client="bob", model="movies", status="200") == 1
    assert sample(metrics, "offramp_budgeted_total", client="alice", model="movies") > 0
    assert sample(metrics, "offramp_stage_seconds_count", model="movies", stage="inference") == answered + 1
    full = engine.segments.flops(token_counts(engine.encoder(TEXTS)))[1].sum()
    spent = sample(metrics, "offramp_flops_total", client="alice", model="movies")
    assert spent <= 2.5 * full * 1.01  # heads of exits leave a small debt
    assert set(layers) <= {1, 3}
