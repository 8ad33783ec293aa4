"""Gradient surgery against its slow and obvious twins, and against answers worked out by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp._core.errors import ConfigError
from offramp.model import MultiExitForSequenceClassification
from offramp.training.strategies import EqualNorm, GradientEquilibrium, Moment, PCGrad, Sweet
from offramp.training.strategies.losses import exit_losses
from offramp.training.surgery import conflict_free_sum, equal_norm_sum, projection_order, scale_gradient
from tests.backbones.backbone_zoo import ZOO, build, save
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


def test_equal_norms_by_hand() -> None:
    """Norms 5 and 1, whose mean is 3: (3, 4) becomes (1.8, 2.4), and (0, 1) becomes (0, 3). An exit with no gradient
    takes no share, and what is in no group is summed as it is."""
    gradients = [
        (torch.tensor([3.0, 4.0]), None, torch.tensor([7.0])),
        (torch.tensor([0.0, 1.0]), torch.tensor([2.0]), None),
        (torch.zeros(2), torch.zeros(1), torch.tensor([1.0])),
    ]
    summed = equal_norm_sum(gradients, [[0], [1]])
    assert [s.tolist() for s in summed if s is not None] == [
        pytest.approx(v) for v in ([1.8, 5.4], [2.0], [8.0])
    ]
    assert gradients[0][0].tolist() == [3.0, 4.0]  # left as they were
    # One group, whose norms are √(9 + 16) and √(1 + 4), each over both parameters.
    first, second = equal_norm_sum([gradients[0][:2], gradients[1][:2]], [[0, 1]])
    mean, root = (5 + math.sqrt(5)) / 2, math.sqrt(5)
    assert first is not None
    assert second is not None
    assert first.tolist() == pytest.approx([mean * 3 / 5, mean * (4 / 5 + 1 / root)])
    assert second.tolist() == pytest.approx([mean * 2 / root])
    assert equal_norm_sum([(None,), (None,)], [[0]]) == [None]


def test_the_owner_of_a_layer_gets_its_weight() -> None:
    """Norms 5 and 1 add up to 6. With the weights 2 and 1 they become 4 and 2."""
    gradients = [(torch.tensor([3.0, 4.0]),), (torch.tensor([0.0, 1.0]),)]
    (summed,) = equal_norm_sum(gradients, [[0]], owner=2)
    assert summed is not None
    assert summed.tolist() == pytest.approx([2.4, 5.2])
    (alone,) = equal_norm_sum(gradients[:1], [[0]], owner=7)  # the only exit keeps its gradient
    assert alone is not None
    assert alone.tolist() == pytest.approx([3.0, 4.0])
    (absent,) = equal_norm_sum(
        [(torch.zeros(2),), gradients[1]], [[0]], owner=7
    )  # its share goes to the others
    assert absent is not None
    assert absent.tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("owner", [0, -1.0, math.inf, math.nan, "3", True])
def test_an_owner_needs_a_positive_weight(owner: Any) -> None:
    with pytest.raises(ConfigError, match="owner of equal_norm"):
        EqualNorm(owner=owner)


def test_a_great_owner_has_the_direction_of_sweet(model: Any) -> None:
    inputs, labels = batch()
    EqualNorm(owner=1e9).step(model, inputs, labels, torch.Tensor.backward)
    owned = [[p.grad.clone() for p in layer] for layer in model.parameters_by_layer()[1:]]
    model.zero_grad()
    Sweet().step(model, inputs, labels, torch.Tensor.backward)
    for layer, of_sweet in zip(owned, model.parameters_by_layer()[1:], strict=True):
        a = torch.cat([g.flatten() for g in layer])
        b = torch.cat([p.grad.flatten() for p in of_sweet])
        assert float(torch.cosine_similarity(a, b, dim=0)) == pytest.approx(1.0, abs=1e-5)


def test_a_gradient_that_is_not_finite_is_not_hidden() -> None:
    for bad in (math.nan, math.inf):
        (total,) = equal_norm_sum([(torch.tensor([bad, 1.0]),), (torch.tensor([1.0, 1.0]),)], [[0]])
        assert total is not None
        assert not bool(total.isfinite().all())


@settings(max_examples=60, deadline=None)
@given(data=st.data(), exits=st.integers(1, 4), share=st.sampled_from([1.0, 0.1, 3.0]))
def test_equal_norms_are_their_twin(data: st.DataObject, exits: int, share: float) -> None:
    """Three parameters of 2, 3 and 1 numbers, each in one of two groups or in none."""
    owner = np.array([0, 0, 1, 1, 1, 2])
    rows = np.array(
        data.draw(st.lists(st.lists(NUMBERS, min_size=6, max_size=6), min_size=exits, max_size=exits))
    )
    has = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=exits, max_size=exits))
    )
    group_of = data.draw(st.lists(st.sampled_from([None, 0, 1]), min_size=3, max_size=3))
    gradients = [
        [torch.tensor(row[owner == p]) if has[i][p] else None for p in range(3)] for i, row in enumerate(rows)
    ]
    groups = [[p for p in range(3) if group_of[p] == group] for group in (0, 1)]
    wanted = reference.equal_norm_sum(rows, has[:, owner], [group_of[p] for p in owner], share)
    for p, total in enumerate(equal_norm_sum(iter(gradients), groups, share)):
        assert (total is None) == (not has[:, p].any())
        assert np.allclose(0.0 if total is None else total.numpy(), wanted[owner == p], atol=1e-9)


@pytest.fixture
def model(tiny_encoder: Path) -> Any:
    return MultiExitForSequenceClassification.from_backbone(str(tiny_encoder), EXITS, gates=True).eval()


def one_by_one(model: Any, inputs: Any, labels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The gradient of each exit's loss alone, from a forward and a backward pass of its own."""
    found = []
    for k in range(len(model.exit_layers)):
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


# Encoder of the zoo, and what marks the layers in the names of their parameters.
LAYERS = [
    ("bert", r"encoder\.layer\.(\d+)\."),
    ("deberta-v3", r"encoder\.layer\.(\d+)\."),  # all layers share a table of relative positions
    ("albert-groups", r"albert_layer_groups\.(\d+)\."),  # two stretches of layers share a module each
    ("modernbert", r"\.layers\.(\d+)\."),  # a norm behind the last layer, of which each exit has a copy
]


@pytest.mark.parametrize(("name", "layers"), LAYERS)
def test_equal_norms_of_a_real_model_are_their_twin(name: str, layers: str, tmp_path: Path) -> None:
    folder = save(build(ZOO[name]()), tmp_path)
    model: Any = MultiExitForSequenceClassification.from_backbone(str(folder), [1, 2, 3], gates=True).eval()
    inputs, labels = batch()
    singles = one_by_one(model, inputs, labels)
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    groups: list[object] = []
    for n, size in sizes.items():
        layer = re.search(layers, n)
        groups += [None if n.startswith("heads.") else int(layer[1]) if layer else "below"] * size
    assert len({*groups}) == (4 if name == "albert-groups" else 5)
    rows = [
        np.concatenate([s[n].flatten().numpy() if n in s else np.zeros(size) for n, size in sizes.items()])
        for s in singles
    ]
    reached = [np.concatenate([np.full(size, n in s) for n, size in sizes.items()]) for s in singles]
    wanted = reference.equal_norm_sum(np.array(rows, dtype=np.float64), np.array(reached), groups)
    loss = EqualNorm().step(model, inputs, labels, torch.Tensor.backward)
    assert float(loss) == pytest.approx(
        sum(float(x.detach()) for x in exit_losses(model, inputs, labels)), rel=1e-5
    )
    start = 0
    for n, parameter in model.named_parameters():
        expected = wanted[start : start + parameter.numel()]
        start += parameter.numel()
        summed = np.zeros_like(expected) if parameter.grad is None else parameter.grad.flatten().numpy()
        assert np.allclose(summed, expected, atol=1e-6), n


def test_parameters_by_segment_are_all_of_them_once(tmp_path: Path) -> None:
    for name, _ in LAYERS:
        folder = save(build(ZOO[name]()), tmp_path / name)
        model: Any = MultiExitForSequenceClassification.from_backbone(str(folder), [1, 3])
        listed = [p for segment in model.parameters_by_segment() for p in segment]
        assert len(listed) == len({*listed})
        assert {*listed} == {*model.parameters()}
