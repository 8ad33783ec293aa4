"""The loss of SAME: numbers worked by hand, the twin in numpy, and extreme logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError
from offramp.attacks.objectives.base import ExitDepth
from offramp.attacks.objectives.same import Same


def test_two_exits_by_hand() -> None:
    # p = softmax(log(3), 0) = (3/4, 1/4) at both exits, current exit 0: weights 1 and 1.2.
    logits = torch.tensor([[[math.log(3), 0.0], [math.log(3), 0.0]]])
    # Targets: exit 0 its own prediction (class 0), exit 1 agrees with exit 0, so its second class (class 1).
    cross = (1.0 * -math.log(3 / 4) + 1.2 * -math.log(1 / 4)) / 2
    # (1/2)·mean(−log p) at each exit.
    unif = (1.0 + 1.2) / 2 * 0.5 * (-math.log(3 / 4) - math.log(1 / 4)) / 2
    assert Same().loss(logits, torch.tensor([0])).item() == pytest.approx(0.8 * cross + 0.2 * unif, rel=1e-6)
    assert Same(1.0).loss(logits, torch.tensor([0])).item() == pytest.approx(cross, rel=1e-6)
    assert Same(0.0).loss(logits, torch.tensor([0])).item() == pytest.approx(unif, rel=1e-6)


def test_three_exits_three_classes_by_hand() -> None:
    # One-sided probabilities; predictions 0, 2, 2 and the exit in the middle: weights 0.1, 1, 1.2.
    p = np.array([[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]]])
    logits = torch.tensor(np.log(p) + 5.0)  # a shift changes nothing
    # Targets: 0 (own), 2 (differs from 0: own), 1 (agrees with 2: second class).
    cross = (0.1 * -math.log(0.5) + 1.0 * -math.log(0.7) + 1.2 * -math.log(0.3)) / 3
    means = [-np.log(row).mean() / 3 for row in p[0]]
    unif = (0.1 * means[0] + 1.0 * means[1] + 1.2 * means[2]) / 3
    assert Same().loss(logits, torch.tensor([1])).item() == pytest.approx(0.8 * cross + 0.2 * unif, rel=1e-6)


def test_weights_by_exit() -> None:
    # With uniform logits every exit contributes the same: the loss is the mean weight.
    logits = torch.zeros(4, 4, 2)
    losses = Same(1.0).loss(logits, torch.arange(4)) / math.log(2)
    tail = [1.0, 1.2, 1.44, 1.728]
    expected = [sum(tail) / 4, (0.1 + sum(tail[:3])) / 4, (0.2 + sum(tail[:2])) / 4, (0.3 + 1.0) / 4]
    assert losses.tolist() == pytest.approx(expected, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(2, 4),
    st.integers(0, 10_000),
    st.floats(0, 1),
    st.sampled_from([1.0, 30.0]),
)
def test_twin_agrees(exits: int, classes: int, seed: int, lam: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(6, exits, classes))).astype(np.float32)
    exit = rng.integers(exits, size=6)
    fast = Same(lam).loss(torch.from_numpy(logits), torch.from_numpy(exit)).numpy()
    np.testing.assert_allclose(fast, Same(lam).value(logits, exit), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saturated_logits_stay_finite(dtype: torch.dtype) -> None:
    big = 6e4 if dtype == torch.float16 else 1e30
    logits = torch.tensor([[[big, -big], [-big, big], [big, big]]], dtype=dtype, requires_grad=True)
    loss = Same().loss(logits, torch.tensor([1]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    assert np.isfinite(Same().value(logits.detach().float().numpy(), np.array([1]))).all()


def test_gradient_is_that_of_fixed_targets() -> None:
    logits = torch.tensor([[[1.0, 0.5, -1.0], [0.9, 0.2, 0.0]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(Same(1.0).loss(logits, torch.tensor([0])).sum(), logits)
    p = logits.detach().softmax(-1)
    one_hot = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])  # exit 1 repeats class 0: its second is class 1
    expected = torch.tensor([1.0, 1.2])[None, :, None] * (p - one_hot) / 2
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("loss", [Same().loss, lambda z, e: Same().value(z.numpy(), e.numpy())])
def test_one_output_is_refused(loss: object) -> None:
    with pytest.raises(ConfigError, match="at least 2 classes, but the model is a regression"):
        loss(torch.zeros(1, 2, 1), torch.tensor([0]))  # type: ignore[operator]


def test_depth_alone_says_nothing() -> None:
    assert ExitDepth().loss(torch.ones(3, 2, 1), torch.zeros(3)).tolist() == [0, 0, 0]
    assert ExitDepth().value(np.ones((3, 2, 1)), np.zeros(3, dtype=int)).tolist() == [0, 0, 0]
