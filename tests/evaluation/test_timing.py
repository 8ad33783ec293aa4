from __future__ import annotations

import numpy as np
import pytest

from offramp._core.errors import ConfigError
from offramp.criteria import make_criterion
from offramp.engine.policy import Policy
from offramp.evaluation import time_speedups
from tests.engine.toy_segments import Scripted, texts

# Two exits; of four texts two are sure at the first exit, with confidence .99 and .8.
SCRIPT = np.log(
    [[[0.99, 0.01], [0.9, 0.1]], [[0.8, 0.2], [0.9, 0.1]], [[0.6, 0.4], [0.9, 0.1]], [[0.6, 0.4], [0.9, 0.1]]]
)


class Counted(Scripted):
    """A net whose time is one second a row and segment."""

    seconds = 0.0

    def run(self, k, state):
        self.seconds += len(state.names)
        return super().run(k, state)


def measure(net: Counted, **options):
    policy = Policy(make_criterion("confidence", 0.7), net.exit_layers)
    return time_speedups(net, policy, texts([3, 3, 3, 3]), repeats=3, **options).to_pylist()


def test_speedup_is_full_time_over_adaptive_time() -> None:
    net = Counted(SCRIPT)
    (row,) = measure(net, clock=lambda: net.seconds)
    assert row["threshold"] == 0.7
    assert (row["seconds"], row["full_seconds"]) == (
        6,
        8,
    )  # four rows in the first segment, two in the second
    assert row["time_speedup"] == row["speedup_low"] == row["speedup_high"] == pytest.approx(8 / 6)


def test_several_thresholds_at_once() -> None:
    net = Counted(SCRIPT)
    rows = measure(net, clock=lambda: net.seconds, thresholds=[0.5, 0.9, 2.0], batch_size=2)
    assert [row["seconds"] for row in rows] == [4, 7, 8]
    assert [row["time_speedup"] for row in rows] == pytest.approx([2, 8 / 7, 1])


def test_full_depth_can_be_other_segments() -> None:
    net, last = Counted(SCRIPT), Counted(SCRIPT[:, 1:])
    (row,) = measure(net, full=last, clock=lambda: net.seconds + last.seconds)
    assert (row["seconds"], row["full_seconds"]) == (6, 4)  # the cascade's last member alone is cheaper
    assert row["time_speedup"] == pytest.approx(4 / 6)


def test_wall_time_is_the_default() -> None:
    (row,) = measure(Counted(SCRIPT))
    assert 0 < row["speedup_low"] <= row["time_speedup"] <= row["speedup_high"]


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="texts and thresholds to time, got 4 and 0"):
        measure(Counted(SCRIPT), thresholds=[])


def test_own_thresholds_are_timed_and_are_no_point_of_a_sweep() -> None:
    net = Counted(SCRIPT)
    rows = measure(
        net, clock=lambda: net.seconds, thresholds=[0.9, (0.9,) * (SCRIPT.shape[1] - 1)], batch_size=2
    )
    assert rows[0]["threshold"] == 0.9
    assert np.isnan(rows[1]["threshold"])
    assert rows[0]["seconds"] == rows[1]["seconds"]
