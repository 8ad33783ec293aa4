"""Choosing the threshold of an exit rule for a stated loss of accuracy, or a stated budget of compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace
from offramp.calibration.temperatures import fit_temperatures
from offramp.criteria import (
    Criterion,
    best_so_far,
    first_exit,
    make_criterion,
    scores,
    threshold_grid,
    with_threshold,
)
from offramp.engine.policy import Policy
from offramp.metrics import find_metric, score

MIN_EXAMPLES = 20
MAX_POINTS = 500  # thresholds tried for a metric that has to be computed anew for each
SLACK = 1e-12  # float noise of sums, far below one example


@dataclass(frozen=True)
class CalibrationSweep:
    """What each threshold of a grid gives on one trace: arrays `(points,)`, the laxest threshold first.

    Attributes:
        thresholds: the thresholds.
        costs: mean FLOPs spent as a share of the full model's; above 1 where a cascade recomputes.
        values: the metric.
        full: the metric of the full model, the last exit.
    """

    thresholds: NDArray[np.float64]
    costs: NDArray[np.float64]
    values: NDArray[np.float64]
    full: float


def tune_threshold(
    trace: Trace,
    criterion: str | Criterion,
    *,
    max_accuracy_drop: float | None = None,
    max_cost: float | None = None,
    metric: str = "accuracy",
    temperatures: bool = True,
) -> Policy:
    """Choose the threshold of an exit rule on a calibration trace, for exactly one target.

    With `max_accuracy_drop`: the cheapest threshold whose metric is at most so far below that of the full
    model, the last exit. With `max_cost`: the threshold with the best metric whose mean cost keeps within
    the budget. For accuracy every distinct outcome is tried, for other metrics 500 quantiles of them. A rule
    passed ready made keeps its options; gate ranges of `learned` and temperatures of `energy` are fitted.

    Args:
        trace: labelled run of the model over the calibration split, neither train nor evaluation data.
        criterion: name of the rule, or a rule whose threshold is to be replaced.
        max_accuracy_drop: largest loss allowed, in units of the metric (0.01 is one point).
        max_cost: largest mean cost allowed, as a share of the full model's FLOPs.
        metric: key of `METRICS`; for regression "pearson" or "spearman".
        temperatures: whether to fit a temperature per exit first; regression has none.

    Returns:
        The policy, with `target` saying what was asked for and what was reached on this trace.

    Raises:
        CalibrationError: unless exactly one target is given and can be met; for fewer than 20 examples,
            missing labels, or a rule without a threshold to choose.
        ConfigError: for an unknown metric, or one that does not fit the task.
        CriterionError: for an unknown rule, or one that does not fit the model.

    Source: temperatures, then a threshold, as in Schwartz et al. 2020 (The Right Tool for the Job) and SWEET.
    """
    check_target(max_accuracy_drop, max_cost)
    rule = make_criterion(criterion) if isinstance(criterion, str) else criterion
    check_request(trace, rule, metric)
    policy = prepare(trace, rule, temperatures)
    table = scores(policy.criterion, trace.scaled(policy.temperatures))
    swept = sweep(trace, policy.criterion, table, metric)
    best = cheapest(swept, max_accuracy_drop) if max_cost is None else most_accurate(swept, max_cost)
    chosen = with_threshold(policy.criterion, swept.thresholds[best])
    asked = {"max_accuracy_drop": max_accuracy_drop, "max_cost": max_cost}
    target = {name: value for name, value in asked.items() if value is not None}
    return replace(
        policy, criterion=chosen, target=target | measure(trace, first_exit(chosen, table), metric)
    )


def measure(trace: Trace, exit: NDArray[np.intp], metric: str = "accuracy") -> dict[str, Any]:
    """The result of leaving at some exits `(examples,)`: the metric if there are labels, cost, depth and examples."""
    rows = np.arange(len(trace))
    scored: dict[str, Any] = {}
    if trace.labels is not None:
        answers = trace.predictions()
        full, reached = (score(metric, trace.labels, answers[rows, k]) for k in (trace.exits - 1, exit))
        scored = {"metric": metric, "full": full, "reached": reached}
    return scored | {
        "cost": float(trace.flops[rows, exit].sum() / trace.full_flops.sum()),
        "depth": float(np.asarray(trace.exit_layers)[exit].mean()),
        "examples": len(trace),
    }


def check_target(max_accuracy_drop: float | None, max_cost: float | None) -> None:
    """Exactly one target, with a value that makes sense."""
    if (max_accuracy_drop is None) == (max_cost is None):
        given = "none" if max_cost is None else "both"
        raise CalibrationError(
            f"expected exactly one of max_accuracy_drop and max_cost, got {given}: choose one"
        )
    # Written so that NaN fails too.
    if max_accuracy_drop is not None and not 0 <= max_accuracy_drop < np.inf:
        raise CalibrationError(
            f"expected max_accuracy_drop of at least 0 (0.01 is one point), got {max_accuracy_drop}"
        )
    if max_cost is not None and not 0 < max_cost < np.inf:
        raise CalibrationError(
            f"expected max_cost above 0, as a share of the full model's cost, got {max_cost}"
        )


def check_request(trace: Trace, criterion: Criterion, metric: str) -> None:
    """Whether this trace can tell which threshold of this rule is best."""
    find_metric(metric, trace.kind)
    if not criterion.tunable:
        raise CalibrationError(
            f"{criterion.name!r} has no threshold to tune: use it as it is, or tune another rule"
        )
    if trace.labels is None:
        raise CalibrationError(
            "tuning needs labels, but the trace carries none: trace a labelled calibration split"
        )
    if len(trace) < MIN_EXAMPLES:
        raise CalibrationError(
            f"expected at least {MIN_EXAMPLES} calibration examples, got {len(trace)}: "
            "a threshold chosen on so few says nothing"
        )
    criterion.check(trace.exits, trace.kind, trace.gates is not None)


def prepare(trace: Trace, criterion: Criterion, temperatures: bool) -> Policy:
    """A policy with all that is fitted but the threshold."""
    fitted = fit_temperatures(trace) if temperatures and trace.kind == "classification" else None
    return Policy(
        criterion.fit(trace).with_temperatures(fitted), trace.exit_layers, fitted, trace.fingerprint
    )


def sweep(trace: Trace, criterion: Criterion, table: NDArray[np.float64], metric: str) -> CalibrationSweep:
    """Cost and metric of every threshold worth trying, from one table of scores `(examples, exits)`."""
    labels, predictions = trace.require_labels(), trace.predictions()
    additive = metric == "accuracy"
    grid = threshold_grid(criterion, table, None if additive else MAX_POINTS)
    if additive:
        right = (predictions == labels[:, None]).astype(np.float64)
        values = totals(right, criterion, table, grid) / len(trace)
    else:
        rows = np.arange(len(trace))
        exits = [first_exit(with_threshold(criterion, threshold), table) for threshold in grid]
        values = np.array([score(metric, labels, predictions[rows, exit]) for exit in exits])
    costs = totals(trace.flops, criterion, table, grid) / trace.full_flops.sum()
    return CalibrationSweep(grid, costs, values, score(metric, labels, predictions[:, -1]))


def totals(
    values: NDArray[np.float64], criterion: Criterion, table: NDArray[np.float64], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum over the examples of what each takes away from the exit it leaves at, for every threshold at once.

    An example waits at an exit as long as no score so far passes the threshold, and each wait changes its
    value by the difference to the next exit. Sorted by score, the sum of all waits is one cumulative sum.

    Args:
        values: `(examples, exits)`, say costs.
        criterion: the rule.
        table: its scores `(examples, exits)`.
        grid: thresholds `(points,)`.

    Returns:
        Sums `(points,)`.
    """
    best = best_so_far(criterion, table)[:, :-1].ravel()
    order = np.argsort(best)
    sums = np.concatenate([[0.0], np.cumsum(np.diff(values, axis=1).ravel()[order])])
    below = sums[np.searchsorted(best[order], grid, side="left")]  # all waits with score < threshold
    waits = sums[-1] - below if criterion.leaves_below else below
    return values[:, 0].sum() + waits


def cheapest(swept: CalibrationSweep, max_drop: float | None) -> int:
    """Index of the least cost whose metric meets the target."""
    assert max_drop is not None
    # The strictest threshold is the full model itself, so that a drop of 0 can always be met.
    fits = np.flatnonzero(swept.values >= swept.full - max_drop - SLACK)
    return int(fits[swept.costs[fits].argmin()])


def most_accurate(swept: CalibrationSweep, max_cost: float) -> int:
    """Index of the best metric within the budget; of equal metrics the lesser cost."""
    fits = np.flatnonzero(swept.costs <= max_cost + SLACK)
    if not len(fits):
        least = int(swept.costs.argmin())
        raise CalibrationError(
            f"no threshold keeps the mean cost within {max_cost:g} of the full model's: the least is "
            f"{swept.costs[least]:.4f}, with a metric of {swept.values[least]:.4f} (full model: "
            f"{swept.full:.4f}); allow more, or add an earlier exit"
        )
    return int(fits[np.lexsort((swept.costs[fits], -swept.values[fits]))[0]])


def refuse_if_calibrated(policy: Policy, data: Trace | str) -> None:
    """Refuse to report a policy on the data it was calibrated on.

    Args:
        policy: the policy to report.
        data: the trace to report on, or its fingerprint; data without a fingerprint cannot be recognised.

    Raises:
        CalibrationError: where the two fingerprints are the same.
    """
    fingerprint = data if isinstance(data, str) else data.fingerprint
    if fingerprint and fingerprint == policy.calibrated_on:
        raise CalibrationError(
            f"the policy was calibrated on this very data (fingerprint {fingerprint[:12]}), where it looks "
            "better than it is: report on another split"
        )
