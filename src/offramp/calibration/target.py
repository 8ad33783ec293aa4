"""The target of a tuning: what it must reach, and the form of the policy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

from offramp._core.arguments import as_python, check_cost, check_share, choice, flag, number, set_fields
from offramp._core.errors import ConfigError
from offramp._core.paths import UserPath
from offramp._core.trace import Trace
from offramp.calibration.accumulated_gap import tune_accumulated_gap
from offramp.calibration.guarantee import check_levels, tune_conformal, tune_with_guarantee
from offramp.calibration.thresholds import MORE_ROWS, Thresholds, tune_threshold
from offramp.criteria import Criterion
from offramp.engine.policy import Policy

_LOG = logging.getLogger(__name__)

Guarantee = Literal["accuracy_drop", "disagreement", "conformal", "accumulated_gap"]
# The thresholds that a guarantee covers, its default first.
FORMS: dict[Guarantee, tuple[Thresholds, ...]] = {
    "accuracy_drop": ("shared", "own"),
    "disagreement": ("shared", "own"),
    "conformal": ("shared",),
    "accumulated_gap": ("own",),
}
DROP = 0.01  # the largest accuracy drop if no target is given
ALPHA, DELTA = 0.02, 0.1
MOST_COST = 10  # of a cascade that recomputes, as a share of its full model; a greater number is a percentage


@dataclass(frozen=True)
class TuningTarget:
    """The target of a threshold, one of four kinds, and the form of the policy; see `tune`.

    Raises:
        ConfigError: options that contradict each other, or a value that is no share.
    """

    max_accuracy_drop: float | None = None
    max_cost: float | None = None
    max_latency_ms: float | None = None
    timed_on: UserPath | None = None
    guarantee: Guarantee | None = None
    alpha: float | None = None
    delta: float | None = None
    thresholds: Thresholds | None = None
    recall: bool = False

    def __post_init__(self) -> None:
        for name in ("max_accuracy_drop", "max_cost", "max_latency_ms", "alpha", "delta"):
            set_fields(self, **{name: as_python(getattr(self, name))})
        if self.max_latency_ms is not None:  # its range is checked where it is used
            number("max_latency_ms", self.max_latency_ms, "a number of milliseconds", lambda _: True)
        if self.guarantee is not None:
            choice("guarantee", self.guarantee, get_args(Guarantee))
        if self.max_latency_ms is None and self.timed_on is not None:
            raise ConfigError(
                "timed_on (--timed) is where max_latency_ms (--max-p95-ms) is measured: give both, or neither"
            )
        if self.max_accuracy_drop is not None:
            check_share("max_accuracy_drop", self.max_accuracy_drop, unit=" points")
        if self.max_cost is not None:
            check_cost("max_cost", self.max_cost, MOST_COST)  # the trace decides between 1 and that
        check_levels(
            **{name: level for name in ("alpha", "delta") if (level := getattr(self, name)) is not None}
        )
        levels = (self.alpha, self.delta)
        shares = (self.max_accuracy_drop, self.max_cost)
        if self.max_latency_ms is not None and any(v is not None for v in (*shares, self.guarantee)):
            raise ConfigError(
                "max_latency_ms (--max-p95-ms) replaces the other targets: give one kind of target"
            )
        if any(v is not None for v in (levels if self.guarantee is None else shares)):
            raise ConfigError(
                "alpha and delta belong to a guarantee (--guarantee), which replaces max_accuracy_drop and "
                "max_cost: give one kind of target"
            )
        if self.guarantee == "conformal" and self.delta is not None:
            raise ConfigError(
                "a conformal guarantee has no delta: its probability is over examples and data together"
            )
        if self.thresholds is not None:
            choice("thresholds", self.thresholds, get_args(Thresholds))
        flag("recall", self.recall)
        if self.guarantee is not None:
            self._check_form(self.guarantee)

    def _check_form(self, guarantee: Guarantee) -> None:
        """Raise `ConfigError` for a form of policy that a guarantee does not cover."""
        if self.thresholds not in (None, *FORMS[guarantee]):
            (covered,) = FORMS[guarantee]
            raise ConfigError(
                f"a guarantee of {guarantee} is for {covered} thresholds: leave thresholds (--thresholds) out"
            )
        if self.recall and guarantee in ("conformal", "accumulated_gap"):
            raise ConfigError(
                f"a guarantee of {guarantee} covers the answers of the exits at which texts leave: leave recall "
                "(--recall) out"
            )

    @property
    def form(self) -> Thresholds:
        """Whether all exits share a threshold or each has its own."""
        return self.thresholds or ("shared" if self.guarantee is None else FORMS[self.guarantee][0])

    def check_exit_choice(self) -> None:
        """Raise `ConfigError` if a choice of exits on the calibration split would void the target."""
        if self.guarantee is not None:
            raise ConfigError(
                "drop_exits (--kept) chooses exits on the calibration split, which voids a guarantee (--guarantee) "
                "tested on it: give one of them"
            )

    def fit(
        self, trace: Trace, criterion: str | Criterion, *, metric: str, temperatures: bool, seed: int = 0
    ) -> Policy:
        """The policy that reaches the target on a calibration trace; the seed is that of a guarantee."""
        alpha = ALPHA if self.alpha is None else self.alpha
        if self.guarantee == "conformal":
            return tune_conformal(trace, criterion, alpha=alpha, temperatures=temperatures, seed=seed)
        delta = DELTA if self.delta is None else self.delta
        if self.guarantee == "accumulated_gap":
            return tune_accumulated_gap(
                trace, criterion, alpha=alpha, delta=delta, temperatures=temperatures, seed=seed
            )
        if self.guarantee is not None:
            return tune_with_guarantee(
                trace,
                criterion,
                risk=self.guarantee,
                alpha=alpha,
                delta=delta,
                temperatures=temperatures,
                thresholds=self.form,
                recall=self.recall,
                seed=seed,
            )
        policy = tune_threshold(
            trace,
            criterion,
            max_accuracy_drop=self.max_accuracy_drop,
            max_cost=self.max_cost,
            metric=metric,
            temperatures=temperatures,
            thresholds=self.form,
            recall=self.recall,
        )
        if "standard_error" in policy.target:
            _LOG.warning(
                "%d calibration examples are few: the threshold keeps the drop and its standard error within the "
                "bound, so texts leave late; to save more, %s, or allow a larger drop (--max-accuracy-drop)",
                len(trace),
                MORE_ROWS,
            )
        return policy
