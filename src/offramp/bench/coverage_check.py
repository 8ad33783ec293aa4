"""Whether a guarantee holds: its policy is chosen on many random splits, and measured on the remaining rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core import progress as display
from offramp._core.errors import CalibrationError
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.calibration.accumulated_gap import accumulated_gap
from offramp.calibration.guarantee import LOSSES, check_levels
from offramp.calibration.target import Guarantee, TuningTarget
from offramp.calibration.thresholds import Thresholds
from offramp.criteria import first_exit, scores
from offramp.engine.policy import Policy

LEVEL = 0.05  # of the tests for a broken guarantee


@dataclass(frozen=True)
class GuaranteeSpec:
    """A guarantee about new examples.

    Attributes:
        guarantee: of which risk: see `tune`. That of a conformal guarantee is disagreement.
        alpha: the largest risk.
        delta: the largest probability of a larger risk; ignored by a conformal guarantee.
        thresholds: one for all exits, or one for each exit; None for the guarantee's default.
    """

    guarantee: Guarantee
    alpha: float
    delta: float = 0.1
    thresholds: Thresholds | None = None

    def __post_init__(self) -> None:
        check_levels(alpha=self.alpha, delta=self.delta)

    @property
    def target(self) -> TuningTarget:
        """The guarantee as the target of a tuning."""
        delta = None if self.guarantee == "conformal" else self.delta
        return TuningTarget(
            guarantee=self.guarantee, alpha=self.alpha, delta=delta, thresholds=self.thresholds
        )

    def policy(self, trace: Trace, criterion: str, seed: int) -> Policy:
        """A policy with the guarantee, from a calibration trace."""
        return self.target.fit(trace, criterion, metric="accuracy", temperatures=True, seed=seed)

    def risk(self, trace: Trace, policy: Policy, exit: NDArray[np.intp]) -> float:
        """The risk of a policy whose examples leave at some exits `(examples,)`."""
        if self.guarantee == "accumulated_gap":
            return accumulated_gap(trace, exit)
        loss, _ = LOSSES["disagreement" if self.guarantee == "conformal" else self.guarantee]
        return float(loss(trace, exit, policy.answers(trace)).mean())


def check_coverage(
    trace: Trace,
    criteria: Sequence[str],
    promises: Sequence[GuaranteeSpec],
    *,
    calibration: int,
    splits: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Measure on random splits how often guarantees hold.

    A Learn-then-Test guarantee is broken if it holds in a share of splits significantly below 1 − delta. A conformal
    guarantee covers calibration rows and new rows together; it is broken if the mean risk is significantly above
    alpha. Both tests are one-sided at 5 %. Measured risks are noisy: measure on many more rows than calibrate.

    The largest of the noisy gaps of all exits would be too high even on many rows. For an accumulated gap, all rows
    therefore stand for the distribution: calibration rows are drawn from them with replacement, and all of them
    measure.

    Args:
        trace: run of a classifier over labelled rows that it was not trained on.
        criteria: names of exit rules.
        promises: the guarantees.
        calibration: number of rows that a policy is chosen on; the others measure its risk, or all of them.
        splits: number of random splits.
        seed: of the splits.
        progress: show a progress bar.

    Returns:
        A row for each criterion and guarantee: `criterion`, `guarantee`, `alpha`, `delta` (None: conformal),
        `thresholds` (shared or own), `calibration` and `measured` rows, `splits`, the share `held` of them in which the
        measured risk is at most alpha, `mean_risk` and its 0.95 quantile `high_risk`, the mean `cost` (a share of the
        full model's FLOPs), and whether the guarantee was `kept`: not significantly broken.

    Raises:
        CalibrationError: no rows left to measure on, no splits, or what the tuning itself refuses.
    """
    if splits < 1 or not 0 < calibration < len(trace):
        raise CalibrationError(
            f"expected at least 1 split and fewer calibration rows than the {len(trace)} there are, got "
            f"{splits} splits and {calibration} rows: the others measure the risk"
        )
    checked = [(criterion, promise) for criterion in criteria for promise in promises]
    rows, finished = [], itertools.count(1)
    with display.progress("check on random splits", len(checked) * splits, show=progress) as update:
        for criterion, promise in checked:
            measured = []
            for split in range(splits):
                measured.append(_measure(trace, criterion, promise, calibration, (seed, split)))
                update(next(finished), None, f"{criterion}, {promise.guarantee}")
            rest = len(trace) - (0 if promise.guarantee == "accumulated_gap" else calibration)
            sizes = {"calibration": calibration, "measured": rest, "splits": splits}
            rows.append(_row(criterion, promise, sizes, *np.array(measured).T))
    return rows


def _row(
    criterion: str,
    promise: GuaranteeSpec,
    sizes: dict[str, int],
    risks: NDArray[np.float64],
    costs: NDArray[np.float64],
) -> dict[str, Any]:
    """What the splits `(splits,)` say about a guarantee."""
    return {
        "criterion": criterion,
        "guarantee": promise.guarantee,
        "alpha": promise.alpha,
        "delta": None if promise.guarantee == "conformal" else promise.delta,
        "thresholds": promise.target.form,
        **sizes,
        "held": float((risks <= promise.alpha).mean()),
        "mean_risk": float(risks.mean()),
        "high_risk": float(np.quantile(risks, 0.95)),
        "cost": float(costs.mean()),
        "kept": _kept(risks, promise),
    }


def _kept(risks: NDArray[np.float64], promise: GuaranteeSpec) -> bool:
    """Whether the measured risks `(splits,)` are consistent with the guarantee."""
    from scipy.stats import binomtest, ttest_1samp

    if promise.guarantee != "conformal":
        held = int((risks <= promise.alpha).sum())
        return bool(binomtest(held, len(risks), 1 - promise.delta, "less").pvalue >= LEVEL)
    if np.ptp(risks) == 0:  # no t-test without any variance
        return bool(risks[0] <= promise.alpha)
    return bool(ttest_1samp(risks, promise.alpha, alternative="greater").pvalue >= LEVEL)


def _measure(
    trace: Trace, criterion: str, promise: GuaranteeSpec, calibration: int, key: tuple[int, int]
) -> tuple[float, float]:
    """Risk and cost, on the other rows, of the policy that one random choice of calibration rows leads to."""
    random = generator(key[0], "promises", key[1])
    if promise.guarantee == "accumulated_gap":
        drawn, rest = random.integers(len(trace), size=calibration), trace
    else:
        order = random.permutation(len(trace))
        drawn, rest = order[:calibration], trace.take(order[calibration:])
    policy = promise.policy(trace.take(drawn), criterion, key[1])
    exit = first_exit(policy.criterion, scores(policy.criterion, rest.scaled(policy.temperatures)))
    cost = rest.flops[np.arange(len(rest)), exit].sum() / rest.full_flops.sum()
    return promise.risk(rest, policy, exit), float(cost)
