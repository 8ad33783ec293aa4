"""From options to the hooks of a service, on a real engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.calibration import tune
from offramp.cli.main import run
from offramp.cli.watching import WatchOptions
from offramp.engine.batching import token_counts
from offramp.engine.policy import Policy
from offramp.inference.engine import Engine
from offramp.inference.tracing import trace
from offramp.model import MultiExitForSequenceClassification
from offramp.serving.hooks import Submission
from offramp.serving.watching import least_share


@pytest.fixture(scope="module")
def engine(tiny_encoder: Path, tiny_data: Any) -> Engine:
    model = MultiExitForSequenceClassification.from_backbone(
        str(tiny_encoder), [1, 2, 4], labels=["bad", "good"], max_length=24
    ).eval()
    policy = tune(trace(model, tiny_data["calibration"]), max_cost=0.7)
    promising = policy.target | {"disagreement": 0.02, "examples": 1000}  # exits of random weights disagree
    return Engine(model, replace(policy, target=promising))


@pytest.fixture
def prometheus() -> None:
    pytest.importorskip("prometheus_client")


@pytest.mark.usefixtures("prometheus")
def test_an_engine_is_budgeted_watched_and_audited(engine: Engine, tiny_data: Any, tmp_path: Path) -> None:
    options = WatchOptions(client_rate=1e12, audit_share=1.0, audit_every=20, retuned=tmp_path)
    watch = options.watch({"movies": engine}, ["alice"])
    watch.close()
    encodings = engine.encoder(tiny_data["validation"]["text"])
    full = engine.segments.flops(token_counts(encodings))[1]
    caps = watch.admit("alice", full)
    assert isinstance(caps, np.ndarray)
    decisions = engine.compacting.run(encodings)
    submission = Submission("alice", "movies", encodings, full, caps)
    watch.answered("alice", "movies", decisions, 0.1, submission)
    while watch.audits["movies"].run_waiting():
        pass
    assert watch.audits["movies"].state().alarms >= 1
    assert watch.drift["movies"].evidence("alice") > 0
    assert Policy.load(tmp_path / "policy-movies.json").exit_layers == (1, 2, 4)
    assert b'offramp_answers_total{client="alice"' in watch.exposition()


@pytest.mark.usefixtures("prometheus")
def test_what_is_not_asked_for_is_left_out(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    watch = WatchOptions().watch({"movies": engine})
    assert (watch.budget, list(watch.drift), list(watch.audits)) == (None, ["movies"], [])
    old = Engine(engine.segments.model, replace(engine.compacting.policy, target={}))
    assert WatchOptions().watch({"movies": old}).drift == {}
    assert "so no drift is watched" in capsys.readouterr().err
    assert WatchOptions(drift=False).watch({"movies": engine}).drift == {}
    with pytest.raises(ConfigError, match="tune it again"):
        WatchOptions(audit_share=0.1).watch({"movies": old})


def test_the_first_exit_bounds_what_a_cap_can_save(engine: Engine) -> None:
    flops, full = engine.segments.flops(np.arange(2, 25))
    assert least_share([engine]) == pytest.approx((flops[:, 0] / full).max())
    assert 0.2 < least_share([engine]) < 0.3
    assert least_share([]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_burst": 5.0}, "client_burst (--client-burst) needs client_rate (--client-rate) as well"),
        ({"total_burst": 5.0}, "total_burst (--total-burst) needs total_rate (--total-rate) as well"),
        ({"total_rate": 0}, "rate must be a positive number of FLOPs, got 0"),
        (
            {"retuned": Path("x")},
            "retuned (--retuned) needs audited texts: give --audit-share as well, such as 0.01",
        ),
    ],
)
def test_options_that_belong_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WatchOptions(**options)
    assert str(caught.value) == message


def test_replicas_have_no_budget_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "served", "--engine", "ray", "--client-rate", "1e9"]) == 2
    assert "budgets and alarms need one process" in capsys.readouterr().err
