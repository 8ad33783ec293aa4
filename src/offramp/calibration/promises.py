"""Is a guarantee kept? Its policy is chosen again and again on other rows, and measured on all that are left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from offramp._core.errors import CalibrationError
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.calibration.guarantee import LOSSES, Risk, tune_conformal, tune_with_guarantee
from offramp.criteria import first_exit, scores
from offramp.engine.policy import Policy

Guarantee = Literal["accuracy_drop", "disagreement", "conformal"]


@dataclass(frozen=True)
class Promise:
    """What is stated of new examples.

    Attributes:
        guarantee: of which risk: see `tune_with_guarantee`, or `tune_conformal`, whose risk is disagreement.
        alpha: the largest risk.
        delta: the largest probability of a larger one; plays no part in a conformal promise.
    """

    guarantee: Guarantee
    alpha: float
    delta: float = 0.1

    @property
    def risk(self) -> Risk:
        """Which risk is measured."""
        return "disagreement" if self.guarantee == "conformal" else self.guarantee

    def policy(self, trace: Trace, criterion: str, seed: int) -> Policy:
        """A policy that makes the promise, from a calibration trace."""
        if self.guarantee == "conformal":
            return tune_conformal(trace, criterion, alpha=self.alpha, seed=seed)
        options: dict[str, Any] = {"alpha": self.alpha, "delta": self.delta, "seed": seed}
        return tune_with_guarantee(trace, criterion, risk=self.guarantee, **options)


def check_promises(
    trace: Trace,
    criteria: Sequence[str],
    promises: Sequence[Promise],
    *,
    calibration: int,
    splits: int = 200,
    seed: int = 0,
    progress: Callable[[str], object] = lambda told: None,
) -> list[dict[str, Any]]:
    """Measure on random splits how often promises are kept.

    A promise of Learn-then-Test is kept where it holds in a share of the splits of at least 1 − delta. A conformal
    promise is one over calibration rows and new row together: kept where the mean risk is at most alpha.

    Args:
        trace: run of a classifier over labelled rows that it was not trained on.
        criteria: names of exit rules.
        promises: what is stated.
        calibration: rows a policy is chosen on; the others measure its risk.
        splits: how many random splits.
        seed: of the splits.
        progress: is told what is being measured.

    Returns:
        A row for each criterion and promise: `criterion`, `guarantee`, `alpha`, `delta` (None: conformal),
        `calibration` and `measured` rows, `splits`, the share `held` of them in which the measured risk is at most
        alpha, `mean_risk` and its 0.95 quantile `high_risk`, the mean `cost` (a share of the full model's FLOPs), and
        whether the promise was `kept`.

    Raises:
        CalibrationError: no rows left to measure on, no splits, or what the tuning itself refuses.
    """
    if splits < 1 or not 0 < calibration < len(trace):
        raise CalibrationError(
            f"expected at least 1 split and fewer calibration rows than the {len(trace)} there are, got "
            f"{splits} splits and {calibration} rows: the others measure the risk"
        )
    rows = []
    for criterion in criteria:
        for promise in promises:
            progress(f"{criterion}: {promise.guarantee} at most {promise.alpha:g}, {splits} splits")
            measured = np.array(
                [_measure(trace, criterion, promise, calibration, (seed, split)) for split in range(splits)]
            )
            risks, costs = measured.T
            held, mean = float((risks <= promise.alpha).mean()), float(risks.mean())
            conformal = promise.guarantee == "conformal"
            rows.append(
                {
                    "criterion": criterion,
                    "guarantee": promise.guarantee,
                    "alpha": promise.alpha,
                    "delta": None if conformal else promise.delta,
                    "calibration": calibration,
                    "measured": len(trace) - calibration,
                    "splits": splits,
                    "held": held,
                    "mean_risk": mean,
                    "high_risk": float(np.quantile(risks, 0.95)),
                    "cost": float(costs.mean()),
                    "kept": mean <= promise.alpha if conformal else held >= 1 - promise.delta,
                }
            )
    return rows


def _measure(
    trace: Trace, criterion: str, promise: Promise, calibration: int, key: tuple[int, int]
) -> tuple[float, float]:
    """Risk and cost, on the other rows, of the policy that one random choice of calibration rows leads to."""
    order = generator(key[0], "promises", key[1]).permutation(len(trace))
    policy = promise.policy(trace.take(order[:calibration]), criterion, key[1])
    rest = trace.take(order[calibration:])
    exit = first_exit(policy.criterion, scores(policy.criterion, policy.scaled(rest)))
    loss, _ = LOSSES[promise.risk]
    cost = rest.costs[np.arange(len(rest)), exit].sum() / rest.full_cost.sum()
    return float(loss(rest, exit).mean()), float(cost)
