"""Gradient surgery against its slow and obvious twins, and against answers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.model import MultiExitForSequenceClassification
from offramp.training.strategies import GradientEquilibrium, Moment, PCGrad
from offramp.training.strategies.losses import exit_losses
from offramp.training.surgery import conflict_free_sum, projection_order, scale_gradient
from tests.training import surgery_reference as reference

EXITS = [1, 2, 4]
NUMBERS = st.floats(-4, 4, width=32)


def test_scale_gradient_is_the_identity_with_a_scaled_gradient() -> None:
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    scaled = scale_gradient(values, 0.25)
    assert torch.equal(scaled, values)
    (scaled**2).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, -1.0]


def test_equilibrium_gives_means() -> None:
    assert reference.equilibrium_weights(3) == pytest.approx(
        np.array([[1 / 3, 1 / 3, 1 / 3], [0, 1 / 2, 1 / 2], [0, 0, 1]])
    )


def test_projection_by_hand() -> None:
    """(1, 0) and (−1, 1) conflict: the first becomes (½, ½), the second (0, 1)."""
    gradients = [(torch.tensor([1.0, 0.0]),), (torch.tensor([-1.0, 1.0]),)]
    (total,) = conflict_free_sum(gradients, [[1], [0]])
    assert total is not None
    assert total.tolist() == [0.5, 1.5]
    assert gradients[0][0].tolist() == [1.0, 0.0]  # left as they were


def test_what_only_one_reaches_is_not_projected() -> None:
    own, other = torch.tensor([5.0]), torch.tensor([7.0])
    shared = torch.tensor([1.0]), torch.tensor([-1.0])
    total = conflict_free_sum([(shared[0], own, None), (shared[1], None, other)], [[1], [0]])
    assert [None if t is None else t.tolist() for t in total] == [[0.0], [5.0], [7.0]]
    assert conflict_free_sum([(None,), (None,)], [[1], [0]]) == [None]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), exits=st.integers(1, 4), seed=st.integers(0, 5), step=st.integers(0, 5))
def test_projection_is_its_twin(data: st.DataObject, exits: int, seed: int, step: int) -> None:
    shapes = [(2,), (1, 3), (1,)]
    owner = [0, 0, 1, 1, 1, 2]  # parameter that each number belongs to
    values = data.draw(st.lists(st.lists(NUMBERS, min_size=6, max_size=6), min_size=exits, max_size=exits))
    has = data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=exits, max_size=exits))
    rows = np.array(values, dtype=np.float64)
    reached = np.array(has)[:, owner]
    gradients = [
        [
            torch.tensor(row[np.array(owner) == p].reshape(shape)) if has[i][p] else None
            for p, shape in enumerate(shapes)
        ]
        for i, row in enumerate(rows)
    ]
    order = projection_order(exits, seed, step)
    found = conflict_free_sum(gradients, order)
    wanted = reference.conflict_free_sum(np.where(reached, rows, 0.0), reached, order)
    for p, total in enumerate(found):
        expected = wanted[np.array(owner) == p]
        assert (total is None) == (not any(row[p] for row in has))
        assert np.allclose(0.0 if total is None else total.flatten().numpy(), expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    one=st.lists(NUMBERS, min_size=4, max_size=4),
    other=st.lists(NUMBERS, min_size=4, max_size=4),
)
def test_two_projected_gradients_undo_neither(one: list[float], other: list[float]) -> None:
    a, b = torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    (total,) = conflict_free_sum([(a,), (b,)], [[1], [0]])
    assert total is not None
    assert float(total @ a) >= -1e-9
    assert float(total @ b) >= -1e-9


def test_order_is_drawn_from_seed_and_step() -> None:
    orders = [projection_order(5, seed, step) for seed in (0, 1) for step in range(20)]
    assert orders == [projection_order(5, seed, step) for seed in (0, 1) for step in range(20)]
    assert len({str(order) for order in orders}) == len(orders)
    assert all(sorted([*others, i]) == list(range(5)) for order in orders for i, others in enumerate(order))


@pytest.fixture
def model(tiny_encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS, gates=True).eval()


def one_by_one(model: Any, inputs: Any, labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The gradient of each exit's loss alone, from a forward and a backward pass of its own."""
    found = []
    for k in range(len(EXITS)):
        model.zero_grad(set_to_none=True)
        exit_losses(model, inputs, labels)[k].backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    model.zero_grad(set_to_none=True)
    return found


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    ids = torch.randint(5, 40, (6, 10), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.arange(6) % 2


def segment_of(name: str) -> int:
    """0-based segment of a parameter that is no head's."""
    layer = int(name.split("layer.")[1].split(".")[0]) + 1 if "encoder.layer." in name else 0
    return next(k for k, last in enumerate(EXITS) if layer <= last)


def test_equilibrium_of_a_real_model_is_its_twin(model: Any) -> None:
    inputs, labels = batch()
    singles, weights = one_by_one(model, inputs, labels), reference.equilibrium_weights(len(EXITS))
    GradientEquilibrium().step(model, inputs, labels, torch.Tensor.backward)
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        head = "heads." in name
        parts = [
            single[name] * (1.0 if head else weights[segment_of(name), k])
            for k, single in enumerate(singles)
            if name in single
        ]
        assert torch.allclose(parameter.grad, torch.stack(parts).sum(dim=0), atol=1e-6), name


def test_pcgrad_of_a_real_model_is_its_twin(model: Any) -> None:
    inputs, labels = batch()
    singles = one_by_one(model, inputs, labels)
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    rows = [
        np.concatenate(
            [single[n].flatten().numpy() if n in single else np.zeros(s) for n, s in sizes.items()]
        )
        for single in singles
    ]
    reached = [np.concatenate([np.full(s, n in single) for n, s in sizes.items()]) for single in singles]
    order = projection_order(len(EXITS), 4, 11)
    wanted = reference.conflict_free_sum(np.array(rows, dtype=np.float64), np.array(reached), order)
    PCGrad().step(model, inputs, labels, torch.Tensor.backward, Moment(step=11, seed=4))
    start = 0
    for name, parameter in model.named_parameters():
        expected = wanted[start : start + parameter.numel()]
        start += parameter.numel()
        found = np.zeros_like(expected) if parameter.grad is None else parameter.grad.flatten().numpy()
        assert np.allclose(found, expected, atol=1e-6), name
