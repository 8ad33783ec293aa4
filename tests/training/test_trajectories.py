"""Twenty steps of every strategy give the losses that were recorded."""

from __future__ import annotations

import json

import pytest

from offramp.training.strategies import STRATEGIES
from tests.training.trajectories import FILE, STEPS, losses

RECORDED = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_losses_are_those_recorded(name: str) -> None:
    assert losses(name) == pytest.approx(RECORDED[name], rel=2e-3)


def test_strategies_differ() -> None:
    assert RECORDED.keys() == STRATEGIES.keys()
    assert all(len(values) == STEPS for values in RECORDED.values())
    # A member of a cascade is trained like a joint model, and the loss of `sweet` starts where joint's does.
    distinct = {name: tuple(values) for name, values in RECORDED.items() if name != "multi_model"}
    assert len(set(distinct.values())) == len(distinct)
    assert RECORDED["multi_model"] == RECORDED["joint"]
    assert RECORDED["sweet"][0] == RECORDED["joint"][0]
