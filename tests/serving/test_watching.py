"""What a watched service counts, whom it caps, and when it raises an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offramp.calibration import tune
from offramp.engine.policy import Decisions
from offramp.serving.audit import Audit, ShadowAudit
from offramp.serving.budget import TOTAL, Allowance, WorkBudget
from offramp.serving.drift import DriftMonitor
from offramp.serving.hooks import Refusal, Submission
from tests.calibration.calibration_traces import classifier

pytest.importorskip("prometheus_client")

from offramp.serving.metrics import FAMILIES, OTHER, ServiceMetrics
from offramp.serving.watching import Watch

TRACE = classifier(n=400, classes=2)
POLICY = tune(TRACE, "confidence", max_accuracy_drop=0.05)
DECISIONS = POLICY.decide(TRACE)


def take(rows: Any) -> Decisions:
    return Decisions(**{name: values[rows] for name, values in vars(DECISIONS).items()})


def answer(watch: Watch, client: str, rows: Any, decisions: Decisions | None = None) -> None:
    """One request through the hooks, as the service calls them."""
    flops = TRACE.full_flops[rows]
    caps = watch.admit(client, flops)
    assert not isinstance(caps, Refusal)
    encodings = [{"input_ids": [int(row)]} for row in rows]
    seconds = {"tokenisation": 0.001, "queue": 0.0, "inference": 0.01}
    submission = Submission(client, "movies", encodings, flops, caps, seconds)
    watch.answered(client, "movies", decisions or take(rows), 0.012, submission)


def value(watch: Watch, name: str, **labels: str) -> float | None:
    return watch.metrics.registry.get_sample_value(name, labels)


def audit(full=lambda batch: TRACE.take(np.array([e["input_ids"][0] for e in batch]))) -> ShadowAudit:
    return ShadowAudit(Audit(POLICY, every=1000), 1.0, full, waiting=1000)


def test_a_request_is_counted() -> None:
    watch = Watch(ServiceMetrics())
    answer(watch, "alice", np.arange(40))
    assert value(watch, "offramp_requests_total", model="movies", client="alice", status="200") == 1
    assert value(watch, "offramp_dropped_total", model="movies", client="alice") == 0
    assert value(watch, "offramp_request_seconds_count", model="movies") == 1
    assert value(watch, "offramp_stage_seconds_sum", model="movies", stage="inference") == 0.01
    for layer, count in zip(*np.unique(DECISIONS.layer[:40], return_counts=True), strict=True):
        labels = {"model": "movies", "client": "alice", "exit_layer": str(layer)}
        assert value(watch, "offramp_answers_total", **labels) == count
    spent = value(watch, "offramp_flops_total", model="movies", client="alice")
    full = value(watch, "offramp_full_flops_total", model="movies", client="alice")
    assert spent == pytest.approx(DECISIONS.flops[:40].sum())
    assert full == pytest.approx(TRACE.full_flops[:40].sum())
    assert value(watch, "offramp_budgeted_total", model="movies", client="alice") is None
    watch.refused("alice", "movies", 413)
    watch.ran_batch("movies", rows=8, waiting=3, seconds=0.1)
    assert value(watch, "offramp_requests_total", model="movies", client="alice", status="413") == 1
    assert value(watch, "offramp_queue_rows", model="movies") == 3
    text = watch.exposition().decode()
    assert "offramp_batch_rows_sum" in text


def test_every_metric_has_a_sample_after_one_watched_request() -> None:
    budget = WorkBudget(Allowance(1, 60), beyond="earlier-exit")
    watch = Watch(
        ServiceMetrics(),
        budget=budget,
        drift={"movies": DriftMonitor([5, 5, 5, 5])},
        audits={"movies": audit()},
    )
    answer(watch, "alice", np.arange(5))
    answer(watch, "alice", np.arange(40))  # more than the budget holds
    watch.dropped(Submission("bob", "movies", [], np.zeros(0), np.zeros(0)))
    watch.ran_batch("movies", 5, 0, 0.1)
    watch.close()
    watch.audits["movies"].run_waiting()
    lines = [line for line in watch.exposition().decode().splitlines() if not line.startswith("#")]
    sampled = {line.partition("{")[0] for line in lines}
    for name in FAMILIES:
        assert any(sample.startswith(f"offramp_{name}") for sample in sampled), name


def test_what_is_not_used_of_the_budget_comes_back() -> None:
    budget = WorkBudget(Allowance(1e-9, 1000), Allowance(1e-9, 5000))
    watch = Watch(ServiceMetrics(), budget=budget)
    rows = np.arange(40)
    answer(watch, "alice", rows)
    left = 1000 - DECISIONS.flops[rows].sum()
    assert budget.levels() == {"alice": pytest.approx(left), TOTAL: pytest.approx(4000 + left)}
    caps = watch.admit("alice", TRACE.full_flops[rows])
    watch.dropped(Submission("alice", "movies", [], TRACE.full_flops[rows], caps))  # who hangs up still pays
    left -= np.minimum(caps, TRACE.full_flops[rows]).sum()
    assert budget.levels()["alice"] == pytest.approx(left)
    watch.exposition()
    assert value(watch, "offramp_budget_level_flops", client="alice") == pytest.approx(left)
    assert value(watch, "offramp_budget_level_flops", client=TOTAL) == pytest.approx(4000 + left)


def test_rows_with_a_cap_are_counted_but_raise_no_alarm() -> None:
    """A cap makes rows leave early, which is neither a drift nor a broken promise."""
    watch = Watch(
        ServiceMetrics(),
        budget=WorkBudget(Allowance(1e-9, 1e-3)),
        drift={"movies": DriftMonitor(POLICY.target["exit_counts"])},
        audits={"movies": audit()},
    )
    watch.close()
    early = take(np.zeros(300, dtype=int))
    flops = TRACE.full_flops[:300]
    capped = Submission("bob", "movies", [{"input_ids": [0]}] * 300, flops, flops / 10)
    watch.answered("bob", "movies", early, 0.1, capped)
    assert value(watch, "offramp_budgeted_total", model="movies", client="bob") == 300
    assert value(watch, "offramp_drift_evidence", model="movies", client="bob") == 0
    assert watch.audits["movies"].run_waiting() == 0


def test_alarms_are_counted_and_logged_without_texts(caplog) -> None:
    watch = Watch(
        ServiceMetrics(),
        drift={"movies": DriftMonitor(POLICY.target["exit_counts"])},
        audits={"movies": audit()},
    )
    watch.close()
    answer(watch, "honest", np.arange(200))
    assert value(watch, "offramp_drift_alarms_total", model="movies", client="honest") == 0
    deepest = np.full(100, int(DECISIONS.exit.argmax()))
    answer(watch, "attacker", np.arange(100), take(deepest))
    assert value(watch, "offramp_drift_alarms_total", model="movies", client="attacker") > 0
    while watch.audits["movies"].run_waiting():
        pass
    assert (
        value(watch, "offramp_audit_alarms_total", model="movies") > 0
    )  # 100 answers are those of another text
    assert "texts of client attacker no longer leave model movies where they did" in caplog.text
    assert "model movies no longer agrees with its full depth as it was tuned to" in caplog.text


def test_labels_of_clients_are_few() -> None:
    metrics = ServiceMetrics(clients=2, names=["keyed"])
    assert [metrics.client(name) for name in ("a", "b", "a", "keyed")] == ["a", OTHER, "a", "keyed"]
