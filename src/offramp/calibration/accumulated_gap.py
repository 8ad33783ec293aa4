"""A guarantee at every exit: those who have left by then have lost little, not only all texts on average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from offramp._core.trace import Trace
from offramp.calibration.guarantee import binomial_p_value, check_levels, require_enough, split_and_prepare
from offramp.calibration.own_thresholds import ThresholdSearch, cuts_between
from offramp.calibration.thresholds import measure
from offramp.criteria import Criterion, first_exit, scores, with_threshold
from offramp.engine.policy import Policy


def tune_accumulated_gap(
    trace: Trace,
    criterion: str | Criterion,
    *,
    alpha: float,
    delta: float = 0.1,
    temperatures: bool = True,
    seed: int = 0,
) -> Policy:
    """Choose a threshold for each exit whose accumulated gap is at most `alpha` at every exit.

    The gap at exit k is the share of examples that only the full model gets right, among those that leave at exit k or
    before. It is never below their drop in accuracy. With probability 1 − `delta` all gaps are at most `alpha`. An
    average over all examples may hide that those who leave first lose much more.

    A first part of the examples proposes thresholds, one exit after another. The rest tests them from the last exit to
    the first: exit k's threshold is added to those of the later exits, and the gap of every exit from k on must pass.
    The exits before the first failure from behind keep all their texts.

    Args:
        trace: labelled run of a classifier over the calibration split.
        criterion: as in `tune`.
        alpha: the largest gap allowed, 0.01 for one point.
        delta: probability, over the draw of the calibration data, with which a gap may exceed alpha.
        temperatures: as in `tune`.
        seed: chooses the three tenths of the examples that propose; the rest test.

    Returns:
        The policy; its `target` holds the request and the largest gap among the test examples.

    Raises:
        CalibrationError, ConfigError, CriterionError: see `tune_with_guarantee`.

    Source: Ringel et al. 2024 (Early Time Classification with Accumulated Accuracy Gap Control), section 4: screening,
        then fixed-sequence testing. Ours: a proposal must pass the test that awaits it at half of `delta`, by the gap
        among the rows that propose it. In the paper this gap may be alpha, and such a proposal seldom passes.
    """
    check_levels(alpha=alpha, delta=delta)
    policy, fit, test = split_and_prepare(trace, criterion, temperatures, seed, labelled=True)
    require_enough(trace, test, "accumulated_gap", alpha, delta)
    rule = policy.criterion
    search = gap_search(policy, fit)
    proposed = propose(search, len(test) / len(fit), alpha, delta / 2)
    table, losses = scores(rule, test.scaled(policy.temperatures)), gaps(test)
    strict = np.full(trace.exits - 1, search.none)
    chosen, p = with_threshold(rule, search.thresholds(strict)), 0.0
    for k in reversed(np.flatnonzero(proposed < search.none)):
        tried = with_threshold(
            rule, search.thresholds(np.where(np.arange(len(strict)) < k, strict, proposed))
        )
        exit = first_exit(tried, table)
        value = max(
            binomial_p_value(left, alpha) for left in accumulated(losses, exit, range(k, trace.exits))
        )
        if value > delta:
            break
        chosen, p = tried, value
    exit = first_exit(chosen, table)
    asked = {"guarantee": "accumulated_gap", "risk": "accumulated_gap", "alpha": alpha, "delta": delta}
    target = {**asked, "risk_reached": accumulated_gap(test, exit), "p_value": p, **measure(test, exit)}
    return replace(policy, criterion=chosen, target=target)


def gap_search(policy: Policy, fit: Trace) -> ThresholdSearch:
    """Scores and gaps of the rows that propose; costs play no role in a proposal."""
    table = scores(policy.criterion, fit.scaled(policy.temperatures))
    return ThresholdSearch(policy.criterion, table, gaps(fit), np.zeros(table.shape))


def propose(search: ThresholdSearch, ratio: float, alpha: float, delta: float) -> NDArray[np.float64]:
    """For each exit in order, the laxest threshold whose gap would pass the test; on turned scores `(exits - 1,)`.

    Args:
        search: of the rows that propose.
        ratio: of the number of rows that test to the number of these rows.
        alpha, delta: of the test.
    """
    from scipy.special import bdtr

    proposed = np.full(search.turned.shape[1] - 1, search.none)
    here, left, lost = np.ones(len(search.table), dtype=bool), 0, 0.0
    for k in range(len(proposed)):
        rows = search.able_to_leave(k, here)
        leaving = search.turned[rows, k]
        cuts = cuts_between(leaving)
        lost_by = lost + np.concatenate([[0.0], np.cumsum(search.losses[rows, k])])[cuts]
        p_values = bdtr(np.ceil(lost_by * ratio), ((left + cuts) * ratio).astype(np.int64), alpha)
        passing = cuts[(p_values <= delta) & (cuts > 0)]
        if not len(passing):
            continue
        cut = int(passing[-1])
        proposed[k] = search.threshold_after(cut, leaving)
        left, lost = left + cut, lost + float(search.losses[rows[:cut], k].sum())
        here[rows[:cut]] = False
    return proposed


def gaps(trace: Trace) -> NDArray[np.float64]:
    """1 where the full model is right and an exit is wrong, else 0; `(examples, exits)`."""
    right = trace.predictions() == trace.require_labels()[:, None]
    return (right[:, -1:] & ~right).astype(np.float64)


def accumulated(
    losses: NDArray[np.float64], exit: NDArray[np.intp], exits: Sequence[int]
) -> list[NDArray[np.float64]]:
    """For each of some exits, the losses at the exit taken of the rows that have left by then `(rows,)`."""
    taken = losses[np.arange(len(losses)), exit]
    return [taken[exit <= k] for k in exits]


def accumulated_gap(trace: Trace, exit: NDArray[np.intp]) -> float:
    """The largest accumulated gap of a run that leaves at some exits `(examples,)`; see `tune_accumulated_gap`."""
    groups = accumulated(gaps(trace), exit, range(trace.exits))
    return max((float(left.mean()) for left in groups if len(left)), default=0.0)
