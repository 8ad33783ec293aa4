"""Objectives of other papers: by hand, and torch against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.attacks.objectives.misclassification import Misclassification
from offramp.attacks.objectives.uniform import DeepSloth, Uniform
from offramp.attacks.victims.base import Answer


def answer(logits: Any, exit: int) -> Answer:
    scores = np.asarray(logits, dtype=np.float32)
    return Answer(scores, exit, exit + 1, int(scores[exit].argmax()), 1.0, 1.0)


def test_uniform_by_hand() -> None:
    # Two classes: ½(|¾−½| + |¼−½|)·2 = ½ at one exit, 0 at the other.
    logits = np.log([[[0.75, 0.25], [0.5, 0.5]]])
    assert Uniform().value(logits, np.array([0])) == pytest.approx([0.25])
    # Three classes: a certain exit is at distance 1, whatever K: ½(⅔ + ⅓ + ⅓)·3/2.
    certain = np.array([[[900.0, 0, 0]]])
    assert Uniform().value(certain, np.array([0])) == pytest.approx([1.0])
    goal = Uniform(alpha=0.7)
    assert goal.done(answer(logits[0], 0), 0.25)
    assert not goal.done(answer(logits[0], 1), 0.31)
    assert goal.score(answer(logits[0], 1), 0.2) > goal.score(answer(logits[0], 0), 0.3)


def test_deepsloth_by_hand() -> None:
    logits = np.log([[[0.75, 0.25], [0.5, 0.5]]])
    expected = -(math.log(0.75) + math.log(0.25)) / 2 + math.log(2)
    assert DeepSloth().value(logits, np.array([0])) == pytest.approx([expected])


def test_misread_looks_at_its_exit() -> None:
    clean = answer([[2.0, 0.0], [0.0, 1.0]], 0)  # predicts 0 where it leaves, 1 at the last exit
    here, last = Misclassification("exit").against(clean), Misclassification("last").against(clean)
    assert (here.label, last.label) == (0, 1)
    logits = np.log([[[0.6, 0.4], [0.9, 0.1]]])
    assert here.value(logits, np.array([0])) == pytest.approx([math.log(0.6)])
    assert here.value(logits, np.array([1])) == pytest.approx([math.log(0.9)])
    assert last.value(logits, np.array([0])) == pytest.approx([math.log(0.1)])
    assert not here.done(clean, 0.0)
    assert not last.done(clean, 0.0)
    assert last.done(answer(logits[0], 0), 0.0)
    assert here.done(answer([[0.0, 1.0], [1.0, 0.0]], 0), 0.0)
    assert not here.done(answer([[0.0, 1.0], [1.0, 0.0]], 1), 0.0)


@pytest.mark.parametrize(
    "goal", [Uniform(), DeepSloth(), Misclassification("exit", 1), Misclassification("last", 0)], ids=str
)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), scale=st.sampled_from([1.0, 30.0]))
def test_loss_is_value(goal: Any, seed: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(5, 3, classes))).astype(np.float32)
    exit = rng.integers(3, size=5)
    tensor = torch.from_numpy(logits).requires_grad_()
    loss = goal.loss(tensor, torch.from_numpy(exit))
    np.testing.assert_allclose(loss.detach().numpy(), goal.value(logits, exit), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), tensor)
    assert torch.isfinite(gradient).all()
