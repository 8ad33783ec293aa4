"""Thresholds and exits by measured time: a bound on the latency, and the exits to keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share
from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace
from offramp.calibration.sweeps import MAX_POINTS, own_thresholds
from offramp.calibration.thresholds import (
    SLACK,
    Thresholds,
    checked_policy,
    measure,
    tune_threshold,
)
from offramp.criteria import Criterion, first_exit, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy
from offramp.engine.segment_times import SegmentTimes
from offramp.metrics import score

PERCENTILE = 0.95


def tune_latency(
    trace: Trace,
    criterion: str | Criterion,
    *,
    times: SegmentTimes,
    lengths: NDArray[np.int64],
    max_p95_ms: float,
    metric: str = "accuracy",
    temperatures: bool = True,
    thresholds: Thresholds = "shared",
    recall: bool = False,
) -> Policy:
    """Choose the threshold with the best metric whose latency for single texts is within a bound.

    Args:
        trace, criterion, metric, temperatures, thresholds, recall: as in `tune`.
        times: of the model's segments on the target machine, without tokenisation.
        lengths: tokens of each text of the trace `(examples,)`.
        max_p95_ms: largest 95th percentile of the milliseconds per text.

    Raises:
        CalibrationError: no threshold is within the bound, times of another model, a wrong number of lengths, or a
            bound that is not above 0; see also `tune`.
    """
    if not 0 < max_p95_ms < np.inf:
        raise CalibrationError(f"expected max_p95_ms above 0, got {max_p95_ms}")
    if len(lengths) != len(trace) or len(times.fixed) != trace.exits:
        raise CalibrationError(
            f"expected a length for each of {len(trace)} texts and times of {trace.exits} segments, got {len(lengths)} "
            f"and {len(times.fixed)}: measure this model, on the texts of the trace"
        )
    policy = checked_policy(trace, criterion, metric, temperatures, recall)
    rule, leaving = policy.criterion, times.leaving(lengths)
    table = scores(rule, trace.scaled(policy.temperatures))
    grid: list[float | tuple[float, ...]] = threshold_grid(rule, table, MAX_POINTS).tolist()
    if thresholds == "own":
        grid += own_thresholds(trace, policy, table, leaving / leaving[:, -1].mean())
    exits = np.stack([first_exit(with_threshold(rule, threshold), table) for threshold in grid])
    rows = np.arange(len(trace))
    spent = leaving[rows, exits]  # (thresholds, examples)
    p95, mean = np.quantile(spent, PERCENTILE, axis=1), spent.mean(axis=1)
    fits = np.flatnonzero(p95 <= max_p95_ms + SLACK)
    if not len(fits):
        raise CalibrationError(
            f"no threshold keeps the 95th percentile within {max_p95_ms:g} ms: the least is {p95.min():.3g} ms; allow "
            "more, add an earlier exit, or export in int8"
        )
    labels, predictions = trace.require_labels(), policy.answers(trace)
    values = np.array([score(metric, labels, predictions[rows, exits[i]]) for i in fits])
    best = int(fits[np.lexsort((mean[fits], -values))[0]])
    target = {
        "max_p95_ms": max_p95_ms,
        "p95_ms": float(p95[best]),
        "mean_ms": float(mean[best]),
        "full_p95_ms": float(np.quantile(leaving[:, -1], PERCENTILE)),
        **measure(trace, exits[best], metric, predictions),
    }
    return replace(policy, criterion=with_threshold(rule, grid[best]), target=target)


@dataclass(frozen=True)
class ExitChoice:
    """The exits to keep.

    Attributes:
        layers: layers of the exits; always including the last exit.
        policy: for a model with only these exits; the `cost` in its target includes visits.
        visit: the cost of one visit, as a share of the full model's time.
        steps: one per exit dropped, after a first one for none: `dropped`, the layer of the exit (0 for none), and
            `cost`, the mean cost after it, as a share of the full model's with visits included.
    """

    layers: tuple[int, ...]
    policy: Policy
    visit: float
    steps: tuple[dict[str, float], ...]


def choose_exits(
    trace: Trace,
    criterion: str | Criterion,
    *,
    visit: float,
    max_accuracy_drop: float = 0.01,
    metric: str = "accuracy",
    thresholds: Thresholds = "shared",
) -> ExitChoice:
    """Drop exits one by one while the cheapest policy for the target gets cheaper.

    An exit has few FLOPs, but takes time: head, decision, and the way to Python and back. So each visit costs its
    measured time.

    Args:
        trace: labelled run over the calibration split, with all exits.
        criterion: the exit rule, tuned again for every choice of exits.
        visit: cost of every exit that a text reaches, as a share of the full model's time; see `exit_overhead`. With a
            visit of 0 an exit is dropped only if it takes texts from better exits.
        max_accuracy_drop: target of the tuning.
        metric: key of `METRICS`.
        thresholds: as in `tune`.

    Raises:
        ConfigError: a `visit` that is no share of the full model's time; see also `tune`.
    """
    check_share("visit", visit)

    def tuned(exits: tuple[int, ...]) -> Policy:
        return tune_threshold(
            with_visits(keep(trace, exits), visit),
            criterion,
            max_accuracy_drop=max_accuracy_drop,
            metric=metric,
            thresholds=thresholds,
        )

    exits = tuple(range(trace.exits))
    best = tuned(exits)
    steps = [{"dropped": 0.0, "cost": float(best.target["cost"])}]
    while len(exits) > 1:
        tries = {k: tuned(tuple(e for e in exits if e != k)) for k in exits[:-1]}
        drop = min(tries, key=lambda k: tries[k].target["cost"])
        if tries[drop].target["cost"] >= best.target["cost"]:
            break
        exits, best = tuple(e for e in exits if e != drop), tries[drop]
        steps.append({"dropped": float(trace.exit_layers[drop]), "cost": float(best.target["cost"])})
    return ExitChoice(best.exit_layers, best, visit, tuple(steps))


def keep(trace: Trace, exits: tuple[int, ...]) -> Trace:
    """The trace of a model with only some exits, given by index. The FLOPs still include dropped heads."""
    chosen = list(exits)
    return replace(
        trace,
        logits=trace.logits[:, chosen],
        exit_layers=tuple(trace.exit_layers[k] for k in chosen),
        flops=trace.flops[:, chosen],
        gates=None if trace.gates is None else trace.gates[:, chosen],
        residuals=None if trace.residuals is None else trace.residuals[:, chosen],
    )


def with_visits(trace: Trace, visit: float) -> Trace:
    """Add the cost of a visit for each exit on the way; the full model visits only its last exit."""
    visits = [visit * (k + 1) for k in range(trace.exits)]
    full = trace.full_flops
    return replace(trace, flops=trace.flops + full[:, None] * visits, full_flops=full * (1 + visit))
