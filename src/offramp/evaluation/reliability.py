"""Reliability of every exit before and after its temperature: rows that can be pooled over models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.calibration import reliability
from offramp.evaluation.arrow_tables import floats, from_rows, rows_where

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("layer", "side", "low", "high", "count", "confidence", "accuracy")
SIDES = ("before", "after")
BINS = 15


def reliability_table(run: Trace, temperatures: Sequence[float] | None, bins: int = BINS) -> pa.Table:
    """Reliability diagrams of every exit, with the logits as they are and divided by the exit's temperature.

    Args:
        run: labelled run of a classifier, logits unscaled; not the one that the temperatures were fitted on.
        temperatures: one an exit; None leaves the side `after` out.
        bins: of equal width.

    Returns:
        A row for each exit, side and bin that holds examples, with the columns `COLUMNS`.

    Source: Guo et al. 2017, figure 4.
    """
    sides = {SIDES[0]: run} if temperatures is None else {SIDES[0]: run, SIDES[1]: run.scaled(temperatures)}
    labels, rows = run.require_labels(), []
    for k, layer in enumerate(run.exit_layers):
        for side, one in sides.items():
            found = reliability(softmax(one.logits[:, k]), labels, bins)
            for i in np.flatnonzero(found.count).tolist():
                edges = (float(found.edges[i]), float(found.edges[i + 1]))
                told = (int(found.count[i]), float(found.confidence[i]), float(found.accuracy[i]))
                rows.append((layer, side, *edges, *told))
    return from_rows(COLUMNS, rows)


def pool_reliability(tables: Sequence[pa.Table]) -> pa.Table:
    """One table for several models or tasks with the same bins: counts are added, means weighted by them."""
    sums: dict[tuple[int, str, float, float], list[float]] = {}
    for table in tables:
        for row in table.to_pylist():
            pooled = sums.setdefault((row["layer"], row["side"], row["low"], row["high"]), [0.0, 0.0, 0.0])
            for i, value in enumerate((1.0, row["confidence"], row["accuracy"])):
                pooled[i] += row["count"] * value
    rows = [(*key, int(n), sure / n, right / n) for key, (n, sure, right) in sorted(sums.items())]
    return from_rows(COLUMNS, rows)


def calibration_errors(table: pa.Table) -> dict[tuple[int, str], float]:
    """Expected calibration error by exit layer and side, from the rows of `reliability_table`."""
    keys = dict.fromkeys(zip(table["layer"].to_pylist(), table["side"].to_pylist(), strict=True))
    found = {}
    for layer, side in keys:
        rows = rows_where(rows_where(table, "layer", layer), "side", side)
        count = floats(rows, "count")
        gaps = np.abs(floats(rows, "confidence") - floats(rows, "accuracy"))
        found[layer, side] = float((gaps * count).sum() / count.sum())
    return found
