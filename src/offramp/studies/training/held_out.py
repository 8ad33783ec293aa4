"""What layer 0 saves: cost and score on validation rows at thresholds that were chosen on calibration rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from offramp._core.trace import Trace
from offramp.calibration.latency import keep
from offramp.calibration.thresholds import measure, tune_threshold
from offramp.criteria import Criterion

DROP = 0.01  # how far below the full model's the score may be on calibration rows


def held_out_costs(
    calibration: Trace, validation: Trace, rule: Criterion, metric: str
) -> list[dict[str, Any]]:
    """Tune one model with layer 0 and without it, and measure both. The other exits are the same in both.

    Args:
        calibration, validation: traces of a model; without layer 0 there is nothing to compare.
        rule: when it leaves.
        metric: of the score.

    Returns:
        For each of the two `exits` (their layers), `threshold`, and the numbers of `measure` on validation rows.
    """
    if validation.exit_layers[0] != 0:
        return []
    rows = []
    for first in (0, 1):
        kept = tuple(range(first, validation.exits))
        policy = tune_threshold(keep(calibration, kept), rule, max_accuracy_drop=DROP, metric=metric)
        run = keep(validation, kept)
        numbers = measure(run, policy.decide(run).exit, metric)
        rows.append({"exits": run.exit_layers, "threshold": policy.criterion.threshold, **numbers})
    return rows


def mean_numbers(runs: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, float]]:
    """Means over models of `cost`, `reached` and `full`, with layer 0 and without; none if a model lacks them."""
    names, listed = ("cost", "reached", "full"), [list(rows) for rows in runs]
    if not listed or not all(listed):
        return []
    return [
        {name: sum(float(row[name]) for row in rows) / len(rows) for name in names}
        for rows in zip(*listed, strict=True)
    ]
