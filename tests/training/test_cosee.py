"""COSEE on numbers worked out by hand: signals, weights, the margin, and gradients on the toy net."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from offramp._core.errors import ConfigError
from offramp.training.strategies import Cosee, Moment, make_strategy
from offramp.training.strategies.losses import exit_signals, signal_margin, weights_near_exits
from tests.training.toy_net import ToyNet, gradients_of

# exp z = (3, 1): probabilities ¾ and ¼.
ONE = torch.tensor([[[math.log(3), 0.0]]])


@pytest.mark.parametrize(
    ("signal", "value"),
    [
        ("energy", 1 / 5),
        ("confidence", 1 / 4),
        ("entropy", (0.75 * math.log(4 / 3) + 0.25 * math.log(4)) / math.log(2)),
    ],
)
def test_signals(signal: str, value: float) -> None:
    assert exit_signals(ONE, signal).tolist() == [[pytest.approx(value)]]
    assert torch.isfinite(exit_signals(ONE * 1e30, signal)).all()


def test_weights_fall_with_the_distance_from_the_exit_taken() -> None:
    # Signals from .1 to .9: draws of ¼ and ¾ are the thresholds .3 and .7.
    signals = torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.9, 0.8]])
    first, second, last = (torch.tensor(w) for w in ([4.0, 2, 1], [2.0, 4, 2], [1.0, 2, 4]))
    first, second, last = first / 7, second / 8, last / 7
    low = torch.stack([first, last, last], dim=1)
    torch.testing.assert_close(weights_near_exits(signals, [0.25], math.log(2)), low)
    high = torch.stack([first, first, last], dim=1)
    torch.testing.assert_close(weights_near_exits(signals, [0.75], math.log(2)), high)
    torch.testing.assert_close(weights_near_exits(signals, [0.25, 0.75], math.log(2)), (low + high) / 2)
    second_taken = weights_near_exits(torch.tensor([[0.5, 0.0], [0.1, 1.0]]), [0.2], math.log(2))
    torch.testing.assert_close(second_taken[:, 0], second)
    torch.testing.assert_close(weights_near_exits(signals, [0.4], 0.0), torch.full((3, 3), 1 / 3))
    assert weights_near_exits(torch.empty(0, 4), [0.4], 9.0).tolist() == [[1.0] * 4]


def test_the_margin_is_between_right_and_wrong_answers() -> None:
    # Exit 1: .2 − .5 + .4 = .1. Exit 2: .7 − .1 + .4 = 1. Exit 3 has no wrong answer. The mean of two.
    signals = torch.tensor([[0.1, 0.3, 0.5], [0.7, 0.0, 0.2], [0.0, 0.0, 0.0]], requires_grad=True)
    right = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    margin = signal_margin(signals, right, 0.4)
    assert float(margin.detach()) == pytest.approx(0.55)
    margin.backward()
    expected = torch.tensor([[0.25, 0.25, -0.5], [0.5, -0.25, -0.25], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(signals.grad, expected)
    signals = signals.detach()
    assert float(signal_margin(signals, torch.ones(3, 3, dtype=torch.bool), 0.4)) == 0
    assert float(signal_margin(signals[:1], right[:1], 0.2)) == 0  # far enough apart


class TwoClasses(ToyNet):
    """The toy net with the logits (z, 0): class 0 has the probability σ(z)."""

    kind = "classification"

    def head(self, k: int, state: Any) -> tuple[Tensor, None]:
        answer, gate = super().head(k, state)
        return torch.cat([answer, torch.zeros_like(answer)], dim=1), gate


def test_gradients_by_hand() -> None:
    """At the start all weights are 1/3: with z = (1, 2, 1), by z_k the loss of class 0 has (σ(z_k) − 1) / 3."""
    net: Any = TwoClasses()
    labels = torch.zeros(1, dtype=torch.int64)
    loss = Cosee().step(net, {}, labels, torch.Tensor.backward, Moment(steps=10))
    sure = [1 / (1 + math.exp(-z)) for z in (1, 2, 1)]
    assert float(loss) == pytest.approx(-sum(map(math.log, sure)) / 3)
    one, two, three = ((p - 1) / 3 for p in sure)
    gradients = gradients_of(net)
    assert gradients["a1"] == pytest.approx([one - 2 * two, 4 * two + three], rel=1e-4)  # c1, a2·c2, a3·a2·c3
    assert gradients["c2"] == pytest.approx([2 * two, 2 * two])


def test_weights_sharpen_and_draws_depend_on_seed_and_step() -> None:
    labels = torch.zeros(2, dtype=torch.int64)

    class TwoTexts(TwoClasses):
        def start(self, inputs: Any) -> Any:
            return replace(super().start(inputs), hidden=torch.tensor([[[1.0, 1.0]], [[3.0, 3.0]]]))

    def loss(moment: Moment, **options: Any) -> float:
        return float(Cosee(**options).step(TwoTexts(), {}, labels, lambda loss: None, moment))  # type: ignore[arg-type]

    late = Moment(step=9, steps=10)
    assert loss(late) == loss(late)
    drawn = {round(loss(Moment(step=9, steps=10, seed=seed), thresholds=1), 6) for seed in range(40)}
    # The signals are .21 and .11 for the first text, .045 and .002 for the second: they leave at exits 3 and 2, at 3
    # and 1, or at 2 and 1.
    assert len(drawn) == 3
    assert Moment(step=30, steps=10).progress == 1


def test_regression_and_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="'cosee' needs classes, and the task is regression"):
        Cosee().step(ToyNet(), {}, torch.zeros(1), torch.Tensor.backward)  # type: ignore[arg-type]
    for options, message in (
        ({"signal": "energie"}, "Did you mean 'energy'"),
        ({"beta": -1}, "beta of cosee must be at least 0, got -1"),
        ({"epsilon": 2}, "epsilon of cosee must be from 0 to 1, got 2"),
        ({"thresholds": 0}, "thresholds of cosee must be a whole number"),
        ({"alpha": "much"}, "alpha of cosee must be a number, got 'much'"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_strategy("cosee", **options)
