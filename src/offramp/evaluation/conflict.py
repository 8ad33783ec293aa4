"""Gradient conflict between exits, from inner products of their gradients: numbers only, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import DataError
from offramp.evaluation.arrow_tables import from_rows

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

PAIRS = ("step", "layer", "exit_layer", "other_exit_layer", "cosine", "norm_ratio", "negative_share")
NEXT = ("step", "layer", "exit_layer", "cosine", "norm_ratio", "negative_share")
OWNERS = ("step", "layer", "exit_layer", "norm", "norm_share", "projection_share")


@dataclass(frozen=True)
class GradientAgreement:
    """How pairs of gradients agree, averaged over batches; all arrays have one shape.

    Attributes:
        cosine: mean cosine; 0 where one of the two is zero, NaN where there is no such pair.
        norm_ratio: mean of the first's norm over the second's; NaN where the second is zero.
        negative: share of the batches in which the cosine is negative.
    """

    cosine: Floats
    norm_ratio: Floats
    negative: Floats


@dataclass(frozen=True)
class Ownership:
    """Who owns the update of a layer: arrays `(layers, exits)`, averaged over batches; NaN where an exit is below.

    Attributes:
        norm: of the exit's gradient, `‖g_i‖`.
        norm_share: `‖g_i‖ / Σ_j ‖g_j‖`, over the exits above the layer.
        projection_share: `⟨g_i, G⟩ / ‖G‖²` for the sum `G = Σ_j g_j`: what the exit's gradient adds to the sum along
            the sum. Negative if it opposes the sum; over the exits it adds up to 1.
    """

    norm: Floats
    norm_share: Floats
    projection_share: Floats


@dataclass(frozen=True)
class Conflict:
    """Where in a model the gradients of the exits conflict.

    Attributes:
        exit_layers: of the model, from 1.
        batches: number of batches averaged over.
        pairs: arrays `(layers, exits, exits)`: entry `[l - 1, i, j]` compares exits i and j at layer l,
            for i < j where both sit above the layer; NaN elsewhere.
        following: arrays `(layers,)`: the next exit above a layer against the sum of all later ones; NaN
            above the second-last exit.
        owners: who owns each layer's update, where all exits' gradients are summed as they are.
    """

    exit_layers: tuple[int, ...]
    batches: int
    pairs: GradientAgreement
    following: GradientAgreement
    owners: Ownership

    def columns(self) -> tuple[list[str], Floats, Floats]:
        """Names, cosines and shares of negative cosines `(layers, columns)`: all pairs, then next against later."""
        at = self.exit_layers
        first, second = np.triu_indices(len(at), k=1)
        names = [f"{at[i]} | {at[j]}" for i, j in zip(first, second, strict=True)]
        cosines = np.column_stack([self.pairs.cosine[:, first, second], self.following.cosine])
        negative = np.column_stack([self.pairs.negative[:, first, second], self.following.negative])
        return [*names, "next | later"], cosines, negative


def conflict(products: Floats, exit_layers: tuple[int, ...]) -> Conflict:
    """Conflict from the inner products of `training.gradient_conflict.measure.measure_products`.

    Args:
        products: `(batches, layers, exits, exits)`.
        exit_layers: of the model, from 1.

    Raises:
        DataError: the products are of a model with other exits.

    Source: SWEET (Rotem 2023), its analysis of conflicting gradients; PCGrad (Yu 2020).
    """
    exits, layers = len(exit_layers), exit_layers[-1] if exit_layers else 0
    if products.ndim != 4 or not len(products) or products.shape[1:] != (layers, exits, exits):
        raise DataError(
            f"expected products (batches, {layers}, {exits}, {exits}) for exits {list(exit_layers)}, "
            f"got {products.shape}"
        )
    squares = np.diagonal(products, axis1=2, axis2=3)
    above = np.asarray(exit_layers) >= np.arange(1, layers + 1)[:, None]  # (layers, exits)
    both = np.triu(above[:, :, None] & above[:, None, :], k=1)
    pairs = _agreement(products, squares[:, :, :, None], squares[:, :, None, :], both)
    next_exit = above.argmax(axis=1)
    later = above & (np.arange(exits) > next_exit[:, None])
    following = _agreement_with_sum(products, next_exit, later)
    return Conflict(tuple(exit_layers), len(products), pairs, following, _ownership(products, above))


def _ownership(products: Floats, above: NDArray[np.bool_]) -> Ownership:
    """Shares of products `(batches, layers, exits, exits)`; `above` are the exits above a layer `(layers, exits)`.

    A batch in which the sum is zero has no shares.
    """
    products = np.where(above[:, :, None] & above[:, None, :], products, 0.0)
    norms = np.sqrt(np.diagonal(products, axis1=2, axis2=3))
    along = products.sum(axis=3)  # with the sum of all gradients
    shares = []
    for values in (norms, along):
        whole = np.broadcast_to(values.sum(axis=2, keepdims=True), values.shape)
        share = np.divide(values, whole, out=np.full(values.shape, np.nan), where=whole > 0)
        shares.append(_mean(share))
    return Ownership(*(np.where(above, values, np.nan) for values in (norms.mean(axis=0), *shares)))


def _mean(values: Floats) -> Floats:
    """The mean over the first axis of what is not NaN; NaN where nothing is."""
    counts = np.isfinite(values).sum(axis=0)
    return np.divide(np.nansum(values, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _agreement_with_sum(
    products: Floats, exits: NDArray[np.intp], others: NDArray[np.bool_]
) -> GradientAgreement:
    """Agreement of an exit of each layer `(layers,)` with the sum of other exits `(layers, exits)`."""
    layers = np.arange(len(exits))
    rows = products[:, layers, exits]  # (batches, layers, exits)
    with_sum = (rows * others).sum(axis=2)
    of_sum = (products * others[:, :, None] * others[:, None, :]).sum(axis=(2, 3))
    return _agreement(with_sum, rows[:, layers, exits], np.maximum(of_sum, 0.0), others.sum(axis=1) > 0)


def _agreement(
    products: Floats, first: Floats, second: Floats, defined: NDArray[np.bool_]
) -> GradientAgreement:
    """Agreement from inner products and squared norms `(batches, …)`, where a pair is defined `(…)`."""
    lengths = np.sqrt(first * second)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    ratios = np.full(np.broadcast(first, second).shape, np.nan)
    np.divide(np.sqrt(first), np.sqrt(second), out=ratios, where=second > 0)
    means = (np.clip(cosines, -1, 1).mean(axis=0), ratios.mean(axis=0), (cosines < 0).mean(axis=0))
    return GradientAgreement(*(np.where(defined, mean, np.nan) for mean in means))


def exit_agreement(products: Floats, exit_layers: tuple[int, ...]) -> Floats:
    """Agreement of each exit with the others: cosine of its gradient with the sum of theirs; arguments as `conflict`.

    Returns:
        `(exits,)`: mean over batches and over the layers that the exit shares with others; NaN where it shares none.
    """
    layers, exits = products.shape[1], np.arange(len(exit_layers))
    above = np.asarray(exit_layers) >= np.arange(1, layers + 1)[:, None]  # (layers, exits)
    means = np.full(len(exit_layers), np.nan)
    for exit in exits:
        others = above & above[:, exit, None] & (exits != exit)
        if others.any():
            cosines = _agreement_with_sum(products, np.full(layers, exit), others).cosine
            means[exit] = np.nanmean(cosines)
    return means


def conflict_table(conflicts: dict[int, Conflict]) -> pa.Table:
    """A row for each training step, layer and pair of exits above it, with the columns `PAIRS`."""
    rows = []
    for step, measured in conflicts.items():
        at = measured.exit_layers
        for layer, i, j in np.argwhere(np.isfinite(measured.pairs.cosine)).tolist():
            rows.append((step, layer + 1, at[i], at[j], *_numbers(measured.pairs, (layer, i, j))))
    return from_rows(PAIRS, rows)


def following_table(conflicts: dict[int, Conflict]) -> pa.Table:
    """The next exit against the sum of all later ones: a row for each training step and layer, columns `NEXT`."""
    rows = []
    for step, measured in conflicts.items():
        for (layer,) in np.argwhere(np.isfinite(measured.following.cosine)).tolist():
            following = next(exit for exit in measured.exit_layers if exit > layer)
            rows.append((step, layer + 1, following, *_numbers(measured.following, (layer,))))
    return from_rows(NEXT, rows)


def owners_table(conflicts: dict[int, Conflict]) -> pa.Table:
    """Who owns a layer's update: a row for each training step, layer and exit above it, columns `OWNERS`."""
    rows = []
    for step, measured in conflicts.items():
        owners = measured.owners
        for layer, exit in np.argwhere(np.isfinite(owners.norm)).tolist():
            values = (owners.norm, owners.norm_share, owners.projection_share)
            numbers = [float(array[layer, exit]) for array in values]
            rows.append((step, layer + 1, measured.exit_layers[exit], *numbers))
    return from_rows(OWNERS, rows)


def owner_shares(measured: Conflict) -> dict[str, list[float]]:
    """`norm_shares` and `projection_shares` of each exit, over the layers it shares; NaN if it shares none."""
    owners = measured.owners
    shared = np.isfinite(owners.norm).sum(axis=1) > 1
    return {
        "norm_shares": _mean(owners.norm_share[shared]).tolist(),
        "projection_shares": _mean(owners.projection_share[shared]).tolist(),
    }


def _numbers(agreement: GradientAgreement, index: tuple[int, ...]) -> list[float]:
    arrays = (agreement.cosine, agreement.norm_ratio, agreement.negative)
    return [float(values[index]) for values in arrays]


def conflict_metrics(measured: Conflict) -> dict[str, float]:
    """Summary of a model, averaged over layers and pairs; NaN for a model with one exit."""
    arrays = {
        "cosine": measured.pairs.cosine,
        "negative_share": measured.pairs.negative,
        "next_against_later_cosine": measured.following.cosine,
        "next_against_later_negative_share": measured.following.negative,
    }
    return {
        name: float(np.nanmean(a)) if np.isfinite(a).any() else float("nan") for name, a in arrays.items()
    }
