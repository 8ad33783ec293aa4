"""Conflict from inner products, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from offramp._core.errors import DataError
from offramp.evaluation.conflict import (
    conflict,
    conflict_metrics,
    conflict_table,
    exit_agreement,
    following_table,
    owner_shares,
    owners_table,
)

EXITS = (1, 2, 3)


def products_of(gradients: list[list[list[float]]]) -> np.ndarray:
    """Inner products `(1, layers, exits, exits)` of gradients `(layers, exits, parameters)`."""
    g = np.asarray(gradients, dtype=np.float64)
    return (g @ g.transpose(0, 2, 1))[None]


# Layer 1 has gradients (1, 0), (−1, 1), (0, 2); layer 2 those of exits 2 and 3; layer 3 that of exit 3 alone.
BATCH = products_of([[[1, 0], [-1, 1], [0, 2]], [[0, 0], [3, 4], [4, 3]], [[0, 0], [0, 0], [1, 1]]])


def test_pairs_by_hand() -> None:
    found = conflict(BATCH, EXITS)
    half = np.sqrt(0.5)
    assert found.pairs.cosine[0, 0, 1] == pytest.approx(-half)
    assert found.pairs.cosine[0, 0, 2] == pytest.approx(0)
    assert found.pairs.cosine[0, 1, 2] == pytest.approx(half)
    assert found.pairs.cosine[1, 1, 2] == pytest.approx(24 / 25)
    assert found.pairs.norm_ratio[0, 0, 1] == pytest.approx(half)
    assert found.pairs.norm_ratio[0, 0, 2] == pytest.approx(0.5)
    assert found.pairs.negative[0, 0].tolist()[1:] == [1, 0]
    # Pairs are told once, and only where both exits sit above the layer.
    assert np.isfinite(found.pairs.cosine).sum() == 4
    assert np.isnan(found.pairs.cosine[2]).all()


def test_next_against_all_later_by_hand() -> None:
    """Layer 1: (1, 0) against (−1, 1) + (0, 2) = (−1, 3). Layer 2: (3, 4) against (4, 3). Layer 3: one exit."""
    found = conflict(BATCH, EXITS).following
    assert found.cosine[:2] == pytest.approx([-1 / np.sqrt(10), 24 / 25])
    assert found.norm_ratio[:2] == pytest.approx([1 / np.sqrt(10), 1])
    assert found.negative[:2].tolist() == [1, 0]
    assert np.isnan(found.cosine[2])


def test_owners_by_hand() -> None:
    """Layer 1: norms 1, √2 and 2, and the sum is (0, 3), to which the exits add 0, 1 and 2 along it. Layer 2: the sum
    is (7, 7), to which (3, 4) and (4, 3) add the same."""
    owners = conflict(BATCH, EXITS).owners
    root = np.sqrt(2)
    assert owners.norm[0] == pytest.approx([1, root, 2])
    assert owners.norm_share[0] == pytest.approx(np.array([1, root, 2]) / (3 + root))
    assert owners.projection_share[0] == pytest.approx([0, 1 / 3, 2 / 3])
    assert owners.norm[1, 1:] == pytest.approx([5, 5])
    assert owners.norm_share[1, 1:] == pytest.approx([0.5, 0.5])
    assert owners.projection_share[1, 1:] == pytest.approx([0.5, 0.5])
    assert (owners.norm_share[2, 2], owners.projection_share[2, 2]) == (1, 1)
    for values in (owners.norm, owners.norm_share, owners.projection_share):
        assert np.isnan(values).tolist() == [[False] * 3, [True, False, False], [True, True, False]]
    assert owner_shares(conflict(BATCH, EXITS)) == {  # layers 1 and 2 are shared, the first by exit 1 alone
        "norm_shares": pytest.approx(
            [1 / (3 + root), (root / (3 + root) + 0.5) / 2, (2 / (3 + root) + 0.5) / 2]
        ),
        "projection_shares": pytest.approx([0, (1 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2]),
    }


def test_shares_are_averaged_over_batches_and_an_exit_may_oppose_the_sum() -> None:
    opposed = products_of([[[-1, 0], [3, 0], [0, 0]], [[0, 0], [3, 4], [4, 3]], [[0, 0], [0, 0], [1, 1]]])
    nothing = products_of([[[0, 0]] * 3] * 3)
    owners = conflict(np.concatenate([BATCH, opposed, nothing]), EXITS).owners
    assert conflict(opposed, EXITS).owners.projection_share[0] == pytest.approx([-0.5, 1.5, 0])
    assert owners.projection_share[0] == pytest.approx([-0.25, (1 / 3 + 1.5) / 2, 1 / 3])  # no sum, no shares
    assert owners.norm_share[0, 0] == pytest.approx((1 / (3 + np.sqrt(2)) + 1 / 4) / 2)
    assert owners.norm[0, 0] == pytest.approx(2 / 3)
    assert np.isnan(conflict(nothing, EXITS).owners.norm_share).all()


def test_where_the_graph_is_cut_each_layer_has_one_owner() -> None:
    owners = conflict(BATCH * np.eye(3) * [[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]], EXITS).owners
    assert np.nan_to_num(owners.norm_share).tolist() == np.eye(3).tolist()
    assert np.nan_to_num(owners.projection_share).tolist() == np.eye(3).tolist()


def test_batches_are_averaged() -> None:
    other = products_of([[[1, 0], [2, 0], [0, 2]], [[0, 0], [1, 0], [0, 1]], [[0, 0], [0, 0], [1, 1]]])
    found = conflict(np.concatenate([BATCH, other]), EXITS)
    assert found.batches == 2
    assert found.pairs.cosine[0, 0, 1] == pytest.approx((1 - np.sqrt(0.5)) / 2)
    assert found.pairs.negative[0, 0, 1] == 0.5
    assert found.pairs.norm_ratio[0, 0, 1] == pytest.approx((0.5 + np.sqrt(0.5)) / 2)
    assert conflict_metrics(found)["negative_share"] == pytest.approx(0.125)


def test_exits_that_do_not_reach_a_layer_do_not_conflict_there() -> None:
    found = conflict(products_of([[[1, 0], [0, 0], [0, 0]]] * 3), EXITS)
    assert found.pairs.cosine[0, 0, 1] == 0
    assert found.pairs.negative[0, 0, 1] == 0
    assert np.isnan(found.pairs.norm_ratio[0, 0, 1])
    assert found.following.cosine[0] == 0


def test_tables() -> None:
    found = {0: conflict(BATCH, EXITS), 60: conflict(BATCH, EXITS)}
    rows = conflict_table(found).to_pylist()
    assert len(rows) == 8
    assert {(r["step"], r["layer"], r["exit_layer"], r["other_exit_layer"]) for r in rows} == {
        (step, *pair) for step in (0, 60) for pair in ((1, 1, 2), (1, 1, 3), (1, 2, 3), (2, 2, 3))
    }
    following = following_table(found).to_pylist()
    assert [(r["step"], r["layer"], r["exit_layer"]) for r in following] == [
        (0, 1, 1),
        (0, 2, 2),
        (60, 1, 1),
        (60, 2, 2),
    ]
    owners = owners_table(found).to_pylist()
    assert [(r["step"], r["layer"], r["exit_layer"]) for r in owners] == [
        (step, layer, exit) for step in (0, 60) for layer in EXITS for exit in EXITS if exit >= layer
    ]
    assert owners[2]["norm"] == pytest.approx(2)
    assert owners[2]["projection_share"] == pytest.approx(2 / 3)
    assert following[0]["cosine"] == pytest.approx(-1 / np.sqrt(10))


def test_one_exit_has_nothing_to_conflict_with() -> None:
    found = conflict(np.ones((2, 3, 1, 1)), (3,))
    assert not np.isfinite(found.pairs.cosine).any()
    assert np.isnan(conflict_metrics(found)["cosine"])
    assert np.isnan(owner_shares(found)["norm_shares"]).all()
    assert found.owners.norm_share.tolist() == [[1.0]] * 3
    assert conflict_table({0: found}).num_rows == 0


@pytest.mark.parametrize("shape", [(1, 3, 3), (0, 3, 3, 3), (1, 2, 3, 3), (1, 3, 2, 2)])
def test_products_of_another_model(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected products \(batches, 3, 3, 3\) for exits \[1, 2, 3\]"):
        conflict(np.ones(shape), EXITS)


def test_an_exit_against_the_sum_of_the_others() -> None:
    # One layer under three exits whose gradients are (1, 0), (−1, 0) and (0, 1); a second under the last two.
    first = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    second = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    products = np.stack([first @ first.T, second @ second.T, np.diag([0.0, 0.0, 1.0])])[None]
    found = exit_agreement(products, (1, 2, 3))
    root = np.sqrt(0.5)
    assert found[0] == pytest.approx(-root)  # (1, 0) against (−1, 1)
    assert found[1] == pytest.approx((-root + 1) / 2)  # (−1, 0) against (1, 1), then equal
    assert found[2] == pytest.approx((0 + 1) / 2)  # (0, 1) against nothing, then equal
    assert np.isnan(exit_agreement(products[:, :1, :1, :1], (1,))).all()
