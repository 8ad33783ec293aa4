"""Choosing the threshold of an exit rule for a loss of accuracy or a budget of compute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_cost, check_share, choice
from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace
from offramp.calibration.sweeps import CalibrationSweep, sweep, sweep_own
from offramp.calibration.temperatures import fit_temperatures
from offramp.criteria import (
    Criterion,
    first_exit,
    make_criterion,
    scores,
    with_threshold,
)
from offramp.engine.policy import Policy
from offramp.metrics import find_metric, score

Thresholds = Literal["shared", "own"]  # one for all exits, or one for each exit but the last

FEW = 100  # rows below which one of them weighs more than the usual drop of one point
GROUPS = 10  # of rows, left out in turn for a standard error
MORE_ROWS = (
    "cut more rows with --calibration-size in every command, train first (in Python load_data(…, calibration_size=…)), "
    "or give a file of them (in Python tune(trace(model, rows), …))"
)
SLACK = 1e-12  # float noise of sums, far below one example


def tune_threshold(
    trace: Trace,
    criterion: str | Criterion,
    *,
    max_accuracy_drop: float | None = None,
    max_cost: float | None = None,
    metric: str = "accuracy",
    temperatures: bool = True,
    thresholds: Thresholds = "shared",
    recall: bool = False,
) -> Policy:
    """Choose the threshold of an exit rule on a calibration trace, for exactly one target; see `tune` for arguments.

    With `max_accuracy_drop`: the cheapest threshold whose metric is at most this far below that of the full model. On
    fewer than 100 examples the drop and its standard error together must be within the bound: the cheapest of many
    thresholds looks good on few examples by luck.
    With `max_cost`: the threshold with the best metric whose mean cost is within the budget. For accuracy every
    distinct outcome is tried, for other metrics 500 quantiles of them. A given rule object keeps its options;
    gate ranges of `learned` and temperatures of `energy` are fitted.
    Own thresholds compete with shared ones, so they never cost more on the calibration examples.
    """
    recomputes = bool((trace.flops[:, -1] > trace.full_flops).any())  # each exit costs at most the full model
    check_target(max_accuracy_drop, max_cost, trace.exits if recomputes else 1)
    policy = checked_policy(trace, criterion, metric, temperatures, recall)
    choice("thresholds", thresholds, get_args(Thresholds))
    table = scores(policy.criterion, trace.scaled(policy.temperatures))
    swept = sweep(trace, policy, table, metric)
    if thresholds == "own":
        swept = sweep_own(trace, policy, table, metric).followed_by(swept)
    if max_cost is None:
        assert max_accuracy_drop is not None
        best = cheapest_within(trace, policy, table, swept, max_accuracy_drop, metric)
    else:
        fits = np.flatnonzero(swept.costs <= max_cost + SLACK)
        if not len(fits):
            least = int(swept.costs.argmin())
            raise CalibrationError(
                f"no threshold keeps the mean cost within {max_cost:g} of the full model's: the least is "
                f"{swept.costs[least]:.4f}, with a metric of {swept.values[least]:.4f} (full model: "
                f"{swept.full:.4f}); allow more, or add an earlier exit"
            )
        best = fits[
            np.lexsort((swept.costs[fits], -swept.values[fits]))[0]
        ]  # the lowest cost among equal metrics
    chosen = with_threshold(policy.criterion, swept.thresholds[best])
    exit = first_exit(chosen, table)
    asked = {"max_accuracy_drop": max_accuracy_drop, "max_cost": max_cost}
    target = {name: value for name, value in asked.items() if value is not None}
    target |= measure(trace, exit, metric, policy.answers(trace))
    if max_cost is None and len(trace) < FEW:
        target["standard_error"] = standard_error(trace, exit, metric, policy.answers(trace))
    return replace(policy, criterion=chosen, target=target)


def cheapest_within(
    trace: Trace,
    policy: Policy,
    table: NDArray[np.float64],
    swept: CalibrationSweep,
    max_accuracy_drop: float,
    metric: str,
) -> int:
    """Index of the cheapest candidate of a sweep whose drop is within a bound; see `tune_threshold`."""
    fits = np.flatnonzero(swept.values >= swept.full - max_accuracy_drop - SLACK)
    if not len(fits):  # without recall the strictest threshold gives the full model
        raise CalibrationError(
            f"with recall every threshold drops the metric by more than {max_accuracy_drop:g}: tune without recall, or "
            "allow a larger drop"
        )
    answers = policy.answers(trace)
    if len(trace) >= FEW:
        return int(fits[swept.costs[fits].argmin()])
    for point in fits[np.argsort(swept.costs[fits], kind="stable")]:
        exit = first_exit(with_threshold(policy.criterion, swept.thresholds[point]), table)
        margin = standard_error(trace, exit, metric, answers)
        if swept.full - swept.values[point] + margin <= max_accuracy_drop + SLACK:
            return int(point)
    return len(swept.thresholds) - 1  # the strictest: the full model itself


def standard_error(
    trace: Trace, exit: NDArray[np.intp], metric: str = "accuracy", answers: NDArray[Any] | None = None
) -> float:
    """Standard error of the drop in a metric against the full model, for the exits taken `(examples,)`.

    The jackknife leaves out a tenth of the examples in turn. An example more that the full model alone gets right is
    added: without it, few examples that happen to agree would prove that all do. The full model has no drop, and no
    error. The `answers` `(examples, exits)` are those of a policy; None takes the exits' own.

    Source: Tukey 1958 (jackknife); Breiman et al. 1984, section 3.4.3 (the rule of one standard error).
    """
    rows, labels, full = np.arange(len(trace)), trace.require_labels(), trace.predictions()[:, -1]
    early = (trace.predictions() if answers is None else answers)[rows, exit]
    if (exit == trace.exits - 1).all() and (early == full).all():
        return 0.0
    groups = min(GROUPS, len(rows))
    drops = []
    for group in range(groups) if groups > 1 else ():
        kept = rows % groups != group
        drops.append(score(metric, labels[kept], full[kept]) - score(metric, labels[kept], early[kept]))
    variance = (groups - 1) * np.var(drops) if drops else 0.0
    return float(np.sqrt(variance + 1 / len(rows) ** 2))


def measure(
    trace: Trace, exit: NDArray[np.intp], metric: str = "accuracy", answers: NDArray[Any] | None = None
) -> dict[str, Any]:
    """What a run that leaves at some exits `(examples,)` reaches: what a later run is compared with.

    Args:
        answers: those of a policy `(examples, exits)`; None takes the exits' own.

    Returns:
        With labels the metric; of a classifier the share of answers that differ from the full model's; cost, depth,
        number of examples, and how many left at each exit.
    """
    rows = np.arange(len(trace))
    scored: dict[str, Any] = {}
    whole = trace.predictions()[:, -1]
    early = (trace.predictions() if answers is None else answers)[rows, exit]
    if trace.labels is not None:
        full, reached = (score(metric, trace.labels, made) for made in (whole, early))
        scored = {"metric": metric, "full": full, "reached": reached}
    if trace.kind == "classification":
        scored["disagreement"] = float((early != whole).mean())
    return scored | {
        "cost": float(trace.flops[rows, exit].sum() / trace.full_flops.sum()),
        "depth": float(np.asarray(trace.exit_layers)[exit].mean()),
        "examples": len(trace),
        "exit_counts": np.bincount(exit, minlength=trace.exits).tolist(),
    }


def check_target(max_accuracy_drop: float | None, max_cost: float | None, most_cost: float) -> None:
    """Check the target of a threshold.

    Raises:
        CalibrationError: not exactly one of the two is given.
        ConfigError: it is no share.
    """
    if (max_accuracy_drop is None) == (max_cost is None):
        given = "none" if max_cost is None else "both"
        raise CalibrationError(
            f"expected exactly one of max_accuracy_drop and max_cost, got {given}: choose one"
        )
    if max_accuracy_drop is not None:
        check_share("max_accuracy_drop", max_accuracy_drop, unit=" points")
    if max_cost is not None:
        check_cost("max_cost", max_cost, most_cost)


def checked_policy(
    trace: Trace, criterion: str | Criterion, metric: str, temperatures: bool, recall: bool = False
) -> Policy:
    """Check that the trace can show the best threshold of the rule, then do as `prepare`."""
    if isinstance(criterion, str):
        criterion = make_criterion(criterion)
    find_metric(metric, trace.kind)
    if not criterion.tunable:
        raise CalibrationError(
            f"{criterion.name!r} has no threshold to tune: use it without tuning, or tune another rule"
        )
    if trace.labels is None:
        raise CalibrationError(
            "tuning needs labels, but the trace has none: trace a labelled calibration split"
        )
    if not len(trace):
        raise CalibrationError(f"tuning needs calibration examples, but the trace has none: {MORE_ROWS}")
    criterion = with_threshold(criterion, criterion.default_threshold)  # it may have had other exits
    Policy(criterion, trace.exit_layers, recall=recall).check(
        trace.exit_layers, trace.kind, trace.gates is not None
    )
    return prepare(trace, criterion, temperatures, recall)


def prepare(trace: Trace, criterion: Criterion, temperatures: bool, recall: bool = False) -> Policy:
    """A policy with everything fitted except the threshold."""
    fitted = fit_temperatures(trace) if temperatures and trace.kind == "classification" else None
    return Policy(
        criterion.fit(trace).with_temperatures(fitted),
        trace.exit_layers,
        fitted,
        trace.fingerprint,
        outputs=trace.logits.shape[2],
        recall=recall,
    )


def refuse_if_calibrated(policy: Policy, data: Trace | str) -> None:
    """Raise `CalibrationError` if a policy was calibrated on the reported data, a trace or its fingerprint.

    Data without a fingerprint cannot be recognised.
    """
    fingerprint = data if isinstance(data, str) else data.fingerprint
    if fingerprint and fingerprint == policy.calibrated_on:
        raise CalibrationError(
            f"the policy was calibrated on these data (fingerprint {fingerprint[:12]}), where it looks "
            "better than it is: report on another split"
        )
