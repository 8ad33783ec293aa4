"""Each strategy on a net whose gradients are known: see `toy_net` for the table they are summed from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from offramp._core.errors import ConfigError
from offramp.training.strategies import (
    STRATEGIES,
    Alternating,
    EqualNorm,
    GradientEquilibrium,
    Joint,
    Mixed,
    Moment,
    MultiModel,
    PCGrad,
    SelfDistill,
    Strategy,
    Sweet,
    TwoStage,
    make_strategy,
)
from offramp.training.strategies.losses import distill_loss
from tests.training.toy_net import LABELS, ToyNet, gradients_of

ODD, SECOND = Moment(step=1), Moment(phase=1)
HEADS = {"c1": [2, 2], "c2": [8, 8], "c3": [2, 2]}
JOINT = {"a1": [-6, 18], "a2": 5, "a3": 4, **HEADS}
ROOT = math.sqrt(5)
MEAN = (4 + 8 * ROOT) / 3
LAST = {"a1": [0, 2], "a2": 1, "a3": 4, "c3": [2, 2]}

CASES: list[tuple[Strategy, Moment, dict[str, Any], float]] = [
    (Joint(), Moment(), JOINT, 6),
    (MultiModel(), Moment(), JOINT, 6),
    # Weights 1/2, 1, 3/2.
    (
        Joint("linear"),
        Moment(),
        {"a1": [-7, 19], "a2": 5.5, "a3": 6, "c1": [1, 1], "c2": [8, 8], "c3": [3, 3]},
        6,
    ),
    (Sweet(), Moment(), {"a1": [2, 0], "a2": 4, "a3": 4, **HEADS}, 6),
    (TwoStage(), Moment(), LAST, 1),
    (TwoStage(), SECOND, {"c1": [2, 2], "c2": [8, 8]}, 5),
    (Alternating(), Moment(), LAST, 1),
    (Alternating(), ODD, JOINT, 6),
    (Mixed(), ODD, LAST, 1),
    (Mixed(), SECOND, JOINT, 6),
    # For regression exits learn the last one's answer by (z_i − z_3)²: 0 for exit 1, 1 for exit 2, whose
    # gradient by z_2 is 2: (−4, 8) more on a1, 2 on a2, (4, 4) on c2, and nothing on what makes z_3 alone.
    (SelfDistill(), Moment(), {**JOINT, "a1": [-10, 26], "a2": 7, "c2": [12, 12]}, 7),
    # A mean over the exits above: three for a1, two for a2, one for a3.
    (GradientEquilibrium(), Moment(), {"a1": [-2, 6], "a2": 2.5, "a3": 4, **HEADS}, 6),
    # Only exits 1 and 2 conflict, over a1: (2, 0)·(−8, 16) = −16. Exit 1 becomes (2, 0) + 16/320 (−8, 16) =
    # (1.6, 0.8), exit 2 (−8, 16) + 16/4 (2, 0) = (0, 16), exit 3 stays (0, 2); in any order.
    (PCGrad(), Moment(), {**JOINT, "a1": [1.6, 18.8]}, 6),
    (PCGrad(), Moment(step=5, seed=9), {**JOINT, "a1": [1.6, 18.8]}, 6),
    # On a1 the norms are 2, 8√5, 2, whose mean is m = (4 + 8√5)/3: m ((1, 0) + (−1, 2)/√5 + (0, 1)). On a2 they are
    # 4 and 1, and both become 5/2.
    (EqualNorm(), Moment(), {**JOINT, "a1": [MEAN * (1 - 1 / ROOT), MEAN * (1 + 2 / ROOT)], "a2": 5}, 6),
]


@pytest.mark.parametrize(
    ("strategy", "moment", "expected", "loss"), CASES, ids=[f"{c[0].name}-{i}" for i, c in enumerate(CASES)]
)
def test_gradients_by_hand(strategy: Strategy, moment: Moment, expected: dict[str, Any], loss: float) -> None:
    net: Any = ToyNet()
    found = strategy.step(net, {}, LABELS, torch.Tensor.backward, moment)
    assert not found.requires_grad
    assert float(found) == pytest.approx(loss)
    gradients = gradients_of(net)
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert gradients[name] == pytest.approx(value), name


def test_every_strategy_is_worked_out() -> None:
    # `cosee` needs classes: see test_cosee.
    assert {case[0].name for case in CASES} | {"cosee"} == set(STRATEGIES)


def test_gradients_add_up_and_are_scaled_by_backward() -> None:
    """Accumulated batches: each step adds its gradients, scaled by whatever `backward` does."""
    for strategy, moment, expected, _ in CASES:
        net: Any = ToyNet()
        for _ in range(2):
            strategy.step(net, {}, LABELS, lambda loss: (loss / 4).backward(), moment)
        for name, value in expected.items():
            halved = [v / 2 for v in value] if isinstance(value, list) else value / 2
            assert gradients_of(net)[name] == pytest.approx(halved), (strategy.name, name)


def test_distillation_by_hand() -> None:
    """Student ½, ½; teacher ¾, ¼: KL = ¾ ln 3/2 + ¼ ln 1/2, its gradient p_student − p_teacher."""
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for temperature, size in ((1.0, 1.0), (2.0, 2.0)):
        student = torch.zeros(1, 2, requires_grad=True)
        teacher = torch.tensor([[temperature * math.log(3), 0.0]], requires_grad=True)
        loss = distill_loss(student, teacher, temperature)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(temperature**2 * divergence, rel=1e-5)
        assert student.grad is not None
        assert student.grad.tolist()[0] == pytest.approx([-0.25 * size, 0.25 * size])
        assert teacher.grad is None


def test_phases_share_the_epochs() -> None:
    assert [(p.name, p.share) for p in Joint().phases] == [("", 1.0)]
    assert [(p.name, p.share) for p in TwoStage(heads_share=2).phases] == [("backbone", 1.0), ("heads", 2)]
    assert [(p.name, p.share) for p in Mixed(first=0.25).phases] == [("backbone", 0.25), ("joint", 0.75)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("two_stage", {"heads_share": 0}, "heads_share of two_stage must be positive, got 0"),
        ("mixed", {"first": 1.0}, "between 0 and 1, got 1.0"),
        ("self_distill", {"temperature": 0.0}, "temperature of self_distill must be positive, got 0.0"),
        ("pcgrad", {"weights": "linear"}, "strategy 'pcgrad'"),
        ("self_distil", {}, "Did you mean 'self_distill'"),
        ("mixed", {"weights": "linera"}, "Did you mean 'linear'"),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_strategy(name, **options)
