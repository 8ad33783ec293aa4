"""Thresholds with a guarantee on new data: Learn-then-Test, and conformal prediction of consistency.

Both hold for new data from the distribution of the calibration data; the probability includes the draw of the
calibration data. Neither covers an attacker. Three tenths of the trace fit temperatures, gate ranges and candidate
thresholds; the rest tests them. A threshold tested on data that shaped it would void the guarantee.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share, choice
from offramp._core.errors import CalibrationError, unknown_name
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.calibration.own_thresholds import in_small_steps
from offramp.calibration.sweeps import own_thresholds
from offramp.calibration.thresholds import MORE_ROWS, Thresholds, measure, prepare
from offramp.criteria import Criterion, first_exit, make_criterion, scores, threshold_grid, with_threshold
from offramp.engine.policy import Policy

Risk = Literal["accuracy_drop", "disagreement"]
FIT_SHARE = 0.3  # a temperature per exit needs few examples, a test needs many
MAX_STEPS = 200  # most thresholds to test
BETS = np.linspace(0.0, 1.0, 201)[1:-1]  # as shares of the largest bet that cannot ruin


def tune_with_guarantee(
    trace: Trace,
    criterion: str | Criterion,
    *,
    risk: Risk = "accuracy_drop",
    alpha: float,
    delta: float = 0.1,
    temperatures: bool = True,
    thresholds: Thresholds = "shared",
    recall: bool = False,
    seed: int = 0,
) -> Policy:
    """Choose the cheapest threshold whose risk is at most `alpha` with probability at least 1 − `delta`.

    Thresholds are tested from strict to lax. The full model has no risk. The last threshold before the first failure is
    taken. The order is fixed in advance, so no correction for many tests is needed. Thresholds of their own for each
    exit are tested along the path of `ThresholdSearch`, from high to low prices of errors; the examples that fit choose
    the path.

    Args:
        trace: run of a classifier over the calibration split; labelled, unless the risk is disagreement and
            `temperatures` is off.
        criterion: as in `tune`.
        risk: `accuracy_drop`, the full model's accuracy minus that of early exit, or `disagreement`, the share of
            examples whose answer differs from the full model's.
        alpha: the largest risk allowed, 0.01 for one point.
        delta: probability, over the draw of the calibration data, with which the risk may exceed alpha.
        temperatures, thresholds, recall: as in `tune`. Own thresholds need labels.
        seed: chooses the three tenths of the examples that fit; the rest test.

    Returns:
        The policy; the full model's if no laxer threshold passes. Its `target` holds the request and the result.

    Raises:
        CalibrationError: for regression, missing labels, a rule without a threshold, or too few examples for any test
            to pass.
        ConfigError: a level outside (0, 1).
        CriterionError: for an unknown rule, or one that does not fit the model.

    Source: Angelopoulos et al. 2021 (Learn then Test), fixed-sequence testing; for early exits Schuster et al. 2022
        (CALM), section 3.3.
    """
    if risk not in LOSSES:
        raise CalibrationError(unknown_name("risk", risk, LOSSES))
    check_levels(alpha=alpha, delta=delta)
    choice("thresholds", thresholds, get_args(Thresholds))
    labelled = risk == "accuracy_drop" or thresholds == "own"
    prepared, fit, test = split_and_prepare(trace, criterion, temperatures, seed, labelled=labelled)
    require_enough(trace, test, risk, alpha, delta)
    loss, p_value = LOSSES[risk]
    early = replace(prepared, recall=recall)
    path, answers = path_to_test(early, fit, thresholds), early.answers(test)
    table = scores(prepared.criterion, test.scaled(prepared.temperatures))
    chosen, reached, p = path[0], 0.0, 0.0
    for policy in path[1:]:
        losses = loss(test, first_exit(policy.criterion, table), answers)
        value = p_value(losses, alpha)
        if value > delta:
            break
        chosen, reached, p = policy, float(losses.mean()), value
    asked = {"guarantee": "learn_then_test", "risk": risk, "alpha": alpha, "delta": delta}
    measured = measure(test, first_exit(chosen.criterion, table), answers=chosen.answers(test))
    return replace(chosen, target={**asked, "risk_reached": reached, "p_value": p, **measured})


def path_to_test(policy: Policy, fit: Trace, thresholds: Thresholds) -> list[Policy]:
    """The policies to test in order, after that of the full model, which has no risk."""
    rule, table = policy.criterion, scores(policy.criterion, fit.scaled(policy.temperatures))
    strict_first = threshold_grid(rule, table, MAX_STEPS)[::-1].tolist()
    full = replace(policy, criterion=with_threshold(rule, strict_first[0]), recall=False)
    candidates: list[Any] = strict_first if policy.recall else strict_first[1:]
    if thresholds == "own":
        path = own_thresholds(fit, policy, table, fit.flops / fit.full_flops.mean())
        candidates = in_small_steps(rule, table, path)
    return [full, *(replace(policy, criterion=with_threshold(rule, threshold)) for threshold in candidates)]


def tune_conformal(
    trace: Trace, criterion: str | Criterion, *, alpha: float, temperatures: bool = True, seed: int = 0
) -> Policy:
    """Choose a threshold under which a new example's answer is the full model's with probability 1 − `alpha`.

    The probability is over calibration data and example together. This is weaker than `tune_with_guarantee`, and needs
    fewer examples. The nonconformity of an example is its most permissive score at an exit whose answer differs from
    the full model's; exits with a stricter score than an earlier exit do not count. The threshold is the conformal
    quantile of these scores.

    Args:
        trace: run of a classifier over the calibration split; labelled, unless `temperatures` is off.
        criterion: as in `tune`.
        alpha: the largest probability of an answer that differs.
        temperatures: as in `tune`.
        seed: chooses the three tenths of the examples that fit.

    Returns:
        The policy; the full model's if too many examples mislead the early exits.

    Raises:
        CalibrationError, ConfigError, CriterionError: see `tune_with_guarantee`.

    Source: Schuster et al. 2021 (Consistent Accelerated Inference via Confident Adaptive Transformers), the shared
        calibration of section 4; with the rule's own score in place of a learned meta-classifier.
    """
    check_levels(alpha=alpha)
    policy, fit, test = split_and_prepare(trace, criterion, temperatures, seed, labelled=False)
    if quantile_rank(len(test), alpha) > len(test):
        raise too_few(
            trace, f"a conformal guarantee at alpha {alpha:g}", lambda n: quantile_rank(n, alpha) <= n
        )
    rule = policy.criterion
    table = scores(rule, test.scaled(policy.temperatures))
    strictest = threshold_grid(rule, scores(rule, fit.scaled(policy.temperatures)), 2)[-1]
    worst = np.sort(most_misleading(rule, table, test.predictions()))
    chosen = with_threshold(rule, just_stricter(rule, worst[quantile_rank(len(worst), alpha) - 1], strictest))
    reached = float(disagreement(test, first_exit(chosen, table), test.predictions()).mean())
    asked = {"guarantee": "conformal", "risk": "disagreement", "alpha": alpha}
    target = {**asked, "risk_reached": reached, **measure(test, first_exit(chosen, table))}
    return replace(policy, criterion=chosen, target=target)


def most_misleading(
    criterion: Criterion, table: NDArray[np.float64], predictions: NDArray[Any]
) -> NDArray[np.float64]:
    """Largest score (turned: larger means leaving) at an exit with another answer, `(examples,)`; −inf for none."""
    turned = -table if criterion.leaves_below else table
    before = np.maximum.accumulate(turned, axis=1)[:, :-1]
    # A row never leaves at an exit whose score is stricter than an earlier score: it has left before.
    record = np.ones(turned.shape, dtype=bool)
    record[:, 1:] = turned[:, 1:] > before
    wrong = record & (predictions != predictions[:, -1:])
    worst: NDArray[np.float64] = np.where(wrong, turned, -np.inf).max(axis=1)
    return worst


def just_stricter(criterion: Criterion, turned: float, strictest: float) -> float:
    """The laxest threshold that a score does not pass."""
    if criterion.leaves_below:  # leave at score < threshold
        return float(min(max(-turned, criterion.threshold_range[0]), criterion.threshold_range[1]))
    if criterion.whole:
        return float(np.clip(turned + 1, criterion.threshold_range[0], strictest))
    return float(np.clip(np.nextafter(turned, np.inf), *criterion.threshold_range))


def quantile_rank(examples: int, alpha: float) -> int:
    """Rank of the conformal quantile, from 1; above `examples` where only the full model would do."""
    return int(np.ceil((examples + 1) * (1 - alpha)))


def fit_size(examples: int) -> int:
    """How many of some calibration examples fit; the rest test."""
    return max(1, round(FIT_SHARE * examples))


def require_enough(trace: Trace, test: Trace, risk: str, alpha: float, delta: float) -> None:
    """Raise `CalibrationError` if no test could pass on these examples, even if none goes wrong."""
    p_value = LOSSES[risk][1] if risk in LOSSES else binomial_p_value
    if p_value(np.zeros(len(test)), alpha) > delta:
        promise = f"{risk} of at most {alpha:g} at delta {delta:g}"
        raise too_few(trace, promise, lambda n: p_value(np.zeros(n), alpha) <= delta)


def too_few(trace: Trace, promise: str, enough: Callable[[int], bool]) -> CalibrationError:
    """The error that names the least number of calibration examples; `enough` judges a number of test examples."""
    high = 2
    while not enough(high - fit_size(high)):
        high *= 2
    low = high // 2  # too few, or 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle - fit_size(middle)) else (middle, high)
    return CalibrationError(
        f"{promise} needs at least {high} calibration examples, even if none goes wrong, got {len(trace)}: "
        f"{MORE_ROWS}; or allow more with a larger alpha (--alpha)"
    )


def check_levels(**levels: float) -> None:
    """Raise `ConfigError` unless every level lies strictly between 0 and 1."""
    for name, value in levels.items():
        check_share(name, value, zero=False, full=False)


def split_and_prepare(
    trace: Trace, criterion: str | Criterion, temperatures: bool, seed: int, *, labelled: bool
) -> tuple[Policy, Trace, Trace]:
    """A policy without its threshold, the examples that fitted it, and the examples that test."""
    rule = make_criterion(criterion) if isinstance(criterion, str) else criterion
    if trace.kind == "regression":
        raise CalibrationError(
            "guarantees need right and equal answers, but the task is regression: use max_accuracy_drop"
        )
    if not rule.tunable:
        raise CalibrationError(f"{rule.name!r} has no threshold to tune: tune another rule")
    if trace.labels is None and (labelled or temperatures or rule.needs_gate):
        raise CalibrationError(
            "this guarantee needs labels, but the trace has none: trace a labelled calibration split, or use "
            "disagreement with temperatures off"
        )
    rule = with_threshold(rule, rule.default_threshold)  # it may have had other exits
    rule.check(trace.exits, trace.kind, trace.gates is not None)
    if len(trace) < 2:
        raise CalibrationError(
            f"a guarantee needs examples to fit and others to test, got {len(trace)} calibration examples: {MORE_ROWS}"
        )
    order, size = generator(seed, "guarantee").permutation(len(trace)), fit_size(len(trace))
    fit, test = trace.take(order[:size]), trace.take(order[size:])
    return prepare(fit, rule, temperatures), fit, test


def disagreement(trace: Trace, exit: NDArray[np.intp], answers: NDArray[Any]) -> NDArray[np.float64]:
    """1 where the answer at the exit taken `(examples,)` differs from the full model's, else 0.

    The `answers` `(examples, exits)` are those of a policy, see `Policy.answers`.
    """
    taken = answers[np.arange(len(trace)), exit]
    return (taken != trace.predictions()[:, -1]).astype(np.float64)


def accuracy_drop(trace: Trace, exit: NDArray[np.intp], answers: NDArray[Any]) -> NDArray[np.float64]:
    """1 where only the full model is right, −1 where only the answer at the exit taken is, else 0; `(examples,)`."""
    labels, taken = trace.require_labels(), answers[np.arange(len(trace)), exit]
    return (trace.predictions()[:, -1] == labels).astype(np.float64) - (taken == labels)


def binomial_p_value(losses: NDArray[np.float64], alpha: float) -> float:
    """P-value of "the mean of these 0/1 losses is above alpha": the exact binomial tail.

    For 0/1 losses it is valid, and never above the Hoeffding–Bentkus value, which covers all of [0, 1].

    Source: Angelopoulos et al. 2021, section 3 (binary losses); Brown et al. 2001.
    """
    from scipy.special import bdtr

    return float(bdtr(float(losses.sum()), len(losses), alpha))


def betting_p_value(losses: NDArray[np.float64], alpha: float) -> float:
    """P-value of "the mean of these losses in [−1, 1] is above alpha".

    A gambler who stakes a fixed share b on every `alpha − loss` does not gain on average if the mean is alpha or more,
    nor does the mean wealth W of many such gamblers; so P(W ≥ 1/p) ≤ p (Markov). The wealth depends on the
    variance: paired losses are mostly 0, and bounds from the range alone would need tens of thousands of examples.

    Source: Waudby-Smith and Ramdas 2024 (Estimating means of bounded random variables by betting), section 4; the
        mixture over fixed bets is Cover's universal portfolio and does not depend on the order of the examples.
    """
    from scipy.special import logsumexp

    bets = BETS / (1 - alpha)  # a loss of 1 ruins the boldest gambler
    values, counts = np.unique(losses, return_counts=True)
    wealth = np.log1p(bets[:, None] * (alpha - values)) @ counts
    return float(min(1.0, np.exp(np.log(len(bets)) - logsumexp(wealth))))


Loss = Callable[[Trace, NDArray[np.intp], NDArray[Any]], NDArray[np.float64]]
LOSSES: dict[str, tuple[Loss, Callable[[NDArray[np.float64], float], float]]] = {
    "accuracy_drop": (accuracy_drop, betting_p_value),
    "disagreement": (disagreement, binomial_p_value),
}
