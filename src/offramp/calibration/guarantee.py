"""Thresholds with a guarantee on new data: Learn-then-Test, and conformal prediction of consistency.

Both hold for data drawn as the calibration data were, over the draw of these; neither says anything of an attacker.
What is fitted (temperatures, gate ranges, the thresholds to try) comes from one part of the trace, the tests from the
other: a threshold tested on data that shaped it would void the statement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import CalibrationError, unknown_name
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.calibration.p_values import betting_p_value, binomial_p_value
from offramp.calibration.thresholds import measure, prepare
from offramp.criteria import Criterion, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy

Risk = Literal["accuracy_drop", "disagreement"]
FIT_SHARE = 0.3  # a temperature per exit needs few examples, a test needs all it can get
MIN_FIT = 20
MAX_STEPS = 200  # thresholds tested at most


def tune_with_guarantee(
    trace: Trace,
    criterion: str | Criterion,
    *,
    risk: Risk = "accuracy_drop",
    alpha: float,
    delta: float = 0.1,
    temperatures: bool = True,
    seed: int = 0,
) -> Policy:
    """Choose the cheapest threshold whose risk is at most `alpha` with probability at least 1 − `delta`.

    Thresholds are tested from the strictest, which is the full model and has no risk, to laxer ones; the last before
    the first that fails is taken. That order is fixed in advance, so no correction for many tests is needed.

    Args:
        trace: run of a classifier over the calibration split; labelled, unless the risk is disagreement and
            `temperatures` is off.
        criterion: name of the rule, or a rule whose threshold is to be replaced.
        risk: `accuracy_drop`, the full model's accuracy less that of leaving early, or `disagreement`, the share of
            examples answered otherwise than by the full model.
        alpha: the largest risk allowed, 0.01 for one point.
        delta: the largest probability, over the draw of the calibration data, that the risk is larger all the same.
        temperatures: whether to fit a temperature per exit first.
        seed: chooses the three tenths of the examples that fit, and thereby those that test.

    Returns:
        The policy; the full model's where no laxer threshold passes. `target` says what was asked for and reached.

    Raises:
        CalibrationError: for regression, missing labels, levels outside (0, 1), a rule without a threshold, or so few
            examples that even a perfect record would not pass.
        CriterionError: for an unknown rule, or one that does not fit the model.

    Source: Angelopoulos et al. 2021 (Learn then Test), fixed-sequence testing; for early exits Schuster et al. 2022
        (CALM), section 3.3.
    """
    if risk not in LOSSES:
        raise CalibrationError(unknown_name("risk", risk, LOSSES))
    check_levels(alpha=alpha, delta=delta)
    loss, p_value = LOSSES[risk]
    policy, fit, test = split_and_prepare(
        trace, criterion, temperatures, seed, labelled=risk == "accuracy_drop"
    )
    refuse_if_hopeless(len(test), alpha, delta, p_value)
    grid = threshold_grid(
        policy.criterion, scores(policy.criterion, fit.scaled(policy.temperatures)), MAX_STEPS
    )
    table = scores(policy.criterion, test.scaled(policy.temperatures))
    chosen, reached, p = with_threshold(policy.criterion, grid[-1]), 0.0, 0.0
    for threshold in grid[-2::-1]:
        rule = with_threshold(policy.criterion, threshold)
        losses = loss(test, first_exit(rule, table))
        value = p_value(losses, alpha)
        if value > delta:
            break
        chosen, reached, p = rule, float(losses.mean()), value
    asked = {"guarantee": "learn_then_test", "risk": risk, "alpha": alpha, "delta": delta}
    target = {**asked, "risk_reached": reached, "p_value": p, **measure(test, first_exit(chosen, table))}
    return replace(policy, criterion=chosen, target=target)


def tune_conformal(
    trace: Trace, criterion: str | Criterion, *, alpha: float, temperatures: bool = True, seed: int = 0
) -> Policy:
    """Choose a threshold under which a new example's answer is the full model's with probability 1 − `alpha`.

    The probability is over calibration data and example together: weaker than `tune_with_guarantee`, and it needs
    fewer examples. An example's nonconformity is the score most in favour of leaving among its exits that would
    answer otherwise than the full model and that no earlier exit beats; the threshold is their conformal quantile.

    Args:
        trace: run of a classifier over the calibration split; labelled, unless `temperatures` is off.
        criterion: name of the rule, or a rule whose threshold is to be replaced.
        alpha: the largest probability of another answer.
        temperatures: whether to fit a temperature per exit first.
        seed: chooses the three tenths of the examples that fit.

    Returns:
        The policy; the full model's where there are fewer than about 1 / `alpha` examples.

    Raises:
        CalibrationError: as `tune_with_guarantee`.
        CriterionError: for an unknown rule, or one that does not fit the model.

    Source: Schuster et al. 2021 (Consistent Accelerated Inference via Confident Adaptive Transformers), the shared
        calibration of section 4; without a learned meta-classifier, the rule's own score taking its place.
    """
    check_levels(alpha=alpha)
    policy, fit, test = split_and_prepare(trace, criterion, temperatures, seed, labelled=False)
    rule = policy.criterion
    table = scores(rule, test.scaled(policy.temperatures))
    strictest = threshold_grid(rule, scores(rule, fit.scaled(policy.temperatures)), 2)[-1]
    worst = np.sort(most_misleading(rule, table, test.predictions()))
    rank = int(
        np.ceil((len(worst) + 1) * (1 - alpha))
    )  # 1-based; beyond the last one only the full model is left
    threshold = just_stricter(rule, worst[rank - 1], strictest) if rank <= len(worst) else strictest
    chosen = with_threshold(rule, threshold)
    reached = float(disagreement(test, first_exit(chosen, table)).mean())
    asked = {"guarantee": "conformal", "risk": "disagreement", "alpha": alpha}
    target = {**asked, "risk_reached": reached, **measure(test, first_exit(chosen, table))}
    return replace(policy, criterion=chosen, target=target)


def most_misleading(
    criterion: Criterion, table: NDArray[np.float64], predictions: NDArray[Any]
) -> NDArray[np.float64]:
    """Largest score (turned so that larger means leaving) at an exit with another answer, `(examples,)`; −inf: none."""
    turned = -table if criterion.leaves_below else table
    before = np.maximum.accumulate(turned, axis=1)[:, :-1]
    # Whoever would leave at an exit that an earlier one beats has left at the earlier one.
    record = np.ones(turned.shape, dtype=bool)
    record[:, 1:] = turned[:, 1:] > before
    wrong = record & (predictions != predictions[:, -1:])
    worst: NDArray[np.float64] = np.where(wrong, turned, -np.inf).max(axis=1)
    return worst


def just_stricter(criterion: Criterion, turned: float, strictest: float) -> float:
    """The laxest threshold that this score does not pass."""
    if criterion.leaves_below:  # leave at score < threshold
        return float(min(max(-turned, criterion.threshold_range[0]), criterion.threshold_range[1]))
    if criterion.whole:
        return float(np.clip(turned + 1, criterion.threshold_range[0], strictest))
    return float(np.clip(np.nextafter(turned, np.inf), *criterion.threshold_range))


def check_levels(**levels: float) -> None:
    """Raise `CalibrationError` unless every level lies strictly between 0 and 1."""
    for name, value in levels.items():
        if not 0 < value < 1:  # written so that NaN fails too
            raise CalibrationError(f"expected {name} between 0 and 1 (0.01 is one point), got {value}")


def split_and_prepare(
    trace: Trace, criterion: str | Criterion, temperatures: bool, seed: int, *, labelled: bool
) -> tuple[Policy, Trace, Trace]:
    """A policy with all but its threshold, the part of the trace it was fitted on, and the part that tests."""
    rule = make_criterion(criterion) if isinstance(criterion, str) else criterion
    if trace.kind == "regression":
        raise CalibrationError(
            "guarantees speak of right and equal answers, but the task is regression: use max_accuracy_drop"
        )
    if not rule.tunable:
        raise CalibrationError(f"{rule.name!r} has no threshold to tune: tune another rule")
    if trace.labels is None and (labelled or temperatures or rule.needs_gate):
        raise CalibrationError(
            "this guarantee needs labels, but the trace carries none: trace a labelled calibration split, or ask for "
            "disagreement with temperatures off"
        )
    rule.check(trace.exits, trace.kind, trace.gates is not None)
    order = generator(seed, "guarantee").permutation(len(trace))
    size = max(MIN_FIT, round(FIT_SHARE * len(trace)))
    if len(trace) < 2 * MIN_FIT:
        raise CalibrationError(f"expected at least {2 * MIN_FIT} calibration examples, got {len(trace)}")
    fit, test = trace.take(order[:size]), trace.take(order[size:])
    return prepare(fit, rule, temperatures), fit, test


def refuse_if_hopeless(
    n: int, alpha: float, delta: float, p_value: Callable[[NDArray[np.float64], float], float]
) -> None:
    """Raise `CalibrationError` where not even n examples without any loss would pass the test."""
    if p_value(np.zeros(n), alpha) <= delta:
        return
    needed = n
    while p_value(np.zeros(needed), alpha) > delta:
        needed = needed * 5 // 4 + 1
    share = 1 - FIT_SHARE
    raise CalibrationError(
        f"{n} examples to test on cannot show a risk of at most {alpha:g} at delta {delta:g}, not even without one "
        f"loss: use about {int(np.ceil(needed / share))} calibration examples, or a larger alpha or delta"
    )


def disagreement(trace: Trace, exit: NDArray[np.intp]) -> NDArray[np.float64]:
    """1 where the answer at the exit taken `(examples,)` is not the full model's, else 0."""
    answers = trace.predictions()
    return (answers[np.arange(len(trace)), exit] != answers[:, -1]).astype(np.float64)


def accuracy_drop(trace: Trace, exit: NDArray[np.intp]) -> NDArray[np.float64]:
    """1 where only the full model is right, −1 where only the exit taken is, else 0; `(examples,)`."""
    right = (trace.predictions() == trace.require_labels()[:, None]).astype(np.float64)
    return right[:, -1] - right[np.arange(len(trace)), exit]


LOSSES: dict[str, tuple[Callable[[Trace, NDArray[np.intp]], NDArray[np.float64]], Callable[..., float]]] = {
    "accuracy_drop": (accuracy_drop, betting_p_value),
    "disagreement": (disagreement, binomial_p_value),
}
