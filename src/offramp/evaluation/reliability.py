"""Reliability diagrams of every exit, before and after its temperature, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from offramp._core.trace import Trace
from offramp.calibration import reliability
from offramp.evaluation.arrow_tables import from_rows

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("layer", "side", "low", "high", "count", "confidence", "accuracy")
SIDES = ("before", "after")
BINS = 15


def reliability_table(run: Trace, temperatures: Sequence[float] | None, bins: int = BINS) -> pa.Table:
    """Reliability diagrams of every exit, with the logits as they are and divided by the exit's temperature.

    Args:
        run: labelled trace of a classifier, logits unscaled; not the one that the temperatures were fitted on.
        temperatures: one per exit; None leaves the side `after` out.
        bins: of equal width.

    Returns:
        A row for each exit, side and bin that holds examples, with the columns `COLUMNS`.

    Source: Guo et al. 2017, figure 4.
    """
    from scipy.special import softmax

    sides = {SIDES[0]: run} if temperatures is None else {SIDES[0]: run, SIDES[1]: run.scaled(temperatures)}
    labels, rows = run.require_labels(), []
    for k, layer in enumerate(run.exit_layers):
        for side, trace in sides.items():
            diagram = reliability(softmax(trace.logits[:, k].astype(np.float64), axis=1), labels, bins)
            for i in np.flatnonzero(diagram.count).tolist():
                edges = (float(diagram.edges[i]), float(diagram.edges[i + 1]))
                means = (float(diagram.confidence[i]), float(diagram.accuracy[i]))
                rows.append((layer, side, *edges, int(diagram.count[i]), *means))
    return from_rows(COLUMNS, rows)
