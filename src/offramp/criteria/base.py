"""The protocol of an exit criterion, a score at each exit and a threshold, with functions that rules share."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import as_python, percent_hint, sequence, set_fields
from offramp._core.errors import ConfigError, CriterionError
from offramp._core.numbers import is_number, log_softmax
from offramp._core.trace import Evidence, Kind, Trace

Memory = dict[str, NDArray[Any]]  # every array has the batch as its first dimension
FARTHEST = sys.float_info.max  # finite, so that a policy file stays plain JSON


@dataclass(frozen=True)
class Criterion(ABC):
    """An exit rule: an example leaves at the first exit where its score passes the threshold.

    The threshold is one number for all exits, or one for each exit but the last. The `score` does not depend on it, so
    the scores of a trace are computed once and compared with every threshold. At the last exit every example leaves. A
    threshold that no score passes is allowed: it gives the full model, which is one end of every sweep.
    """

    threshold: float | tuple[float, ...]

    name: ClassVar[str]  # its key in `CRITERIA`
    label: ClassVar[str]  # its name in tables and figures
    leaves_below: ClassVar[bool] = False  # True: leave at score < threshold; False: at score >= threshold
    regression: ClassVar[bool] = False  # whether the rule applies to regression
    min_exits: ClassVar[int] = 1
    needs_gate: ClassVar[bool] = False
    needs_residual: ClassVar[bool] = False
    tunable: ClassVar[bool] = True
    whole: ClassVar[bool] = False  # True: thresholds and scores are whole numbers
    default_threshold: ClassVar[float]
    # Thresholds accepted. Scores s satisfy low <= s < high, so that one end is "all leave at exit 1" and the
    # other "none leaves early".
    threshold_range: ClassVar[tuple[float, float]] = (-FARTHEST, FARTHEST)

    def __post_init__(self) -> None:
        value = as_python(self.threshold)
        if isinstance(value, list | tuple | np.ndarray):
            set_fields(self, threshold=self._own_thresholds(value))
        else:
            low, high = self.threshold_range
            set_fields(self, threshold=require(self.name, "threshold", value, low, high, whole=self.whole))

    def _own_thresholds(self, values: Any) -> tuple[float, ...]:
        """The checked thresholds of a rule with one for each exit but the last."""
        if not self.tunable:
            raise CriterionError(f"{self.name!r} takes one number for all exits, got {values!r:.80}")
        if not len(values):
            raise CriterionError(
                f"{self.name!r} got an empty list of thresholds: give one for each exit but the last"
            )
        low, high = self.threshold_range
        return tuple(
            require(self.name, "a threshold", value, low, high, whole=self.whole) for value in values
        )

    def threshold_at(self, exit: int | NDArray[np.integer]) -> Any:
        """The threshold at an exit, or at an array of exits (0-based). The last exit has none: every row leaves."""
        if isinstance(self.threshold, tuple):
            return np.asarray(self.threshold)[np.minimum(exit, len(self.threshold) - 1)]
        return self.threshold

    @abstractmethod
    def rate(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        """The rule itself: scores `(batch,)` at one exit, and the memory for the next exit; see `score`."""

    def score(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.float64], Memory]:
        """Scores `(batch,)` at one exit, and the memory for the next exit. Memory starts as `{}`.

        A text of which layer 0 recognises nothing scores ∓∞, which no threshold lets leave.
        """
        scores, memory = self.rate(evidence, memory)
        if self.tunable and (silent := evidence.silent) is not None:
            scores = np.where(silent, np.inf if self.leaves_below else -np.inf, scores)
        return scores, memory

    def leaves(self, scores: NDArray[np.floating], exit: int | NDArray[np.integer]) -> NDArray[np.bool_]:
        """Where scores pass the threshold of their exit (0-based); the shapes of both broadcast."""
        threshold = self.threshold_at(exit)
        passed: NDArray[np.bool_] = scores < threshold if self.leaves_below else scores >= threshold
        return passed

    def fit(self, trace: Trace) -> Self:
        """Fit everything except the threshold on a calibration trace; most rules fit nothing."""
        return self

    def with_temperatures(self, temperatures: Sequence[float] | None) -> Self:
        """The rule for logits that a policy divides by one temperature per exit, or by nothing (None).

        Most rules read probabilities, which need no correction.
        """
        return self

    @property
    def leaves_at_once(self) -> bool:
        """Whether every example that layer 0 recognises leaves at the first exit. Rules that count exits never do."""
        low, high = self.threshold_range
        first = self.threshold_at(0)
        return self.tunable and not self.whole and bool(first == (high if self.leaves_below else low))

    def step(self, evidence: Evidence, memory: Memory) -> tuple[NDArray[np.bool_], Memory]:
        """Decide at one exit: the rows that leave `(batch,)`, and the memory for the next exit."""
        scores, memory = self.score(evidence, memory)
        if evidence.exit == evidence.exits - 1:
            return np.ones(len(scores), dtype=bool), memory
        return self.leaves(scores, evidence.exit), memory

    def check(self, exits: int, kind: Kind, gates: bool) -> None:
        """Raise `CriterionError` if the rule does not fit the model or the task."""
        if kind == "regression" and not self.regression:
            raise CriterionError(
                f"{self.name!r} needs class probabilities, but the task is regression: use 'patience'"
            )
        if exits < self.min_exits:
            raise CriterionError(
                f"{self.name!r} needs at least {self.min_exits} exits, but the model has {exits}"
            )
        if isinstance(self.threshold, tuple) and len(self.threshold) != exits - 1:
            raise CriterionError(
                f"{self.name!r} has {len(self.threshold)} thresholds, one for each exit but the last, but the model "
                f"has {exits} exits: tune it again"
            )
        if self.needs_gate and not gates:
            raise CriterionError(
                f"{self.name!r} needs learned gates: train the model with gates=True (--gates)"
            )


def require(rule: str, option: str, value: object, low: float, high: float, *, whole: bool = False) -> float:
    """An option as a (whole) number from `low` to `high`, both included; `CriterionError` for anything else."""
    # A NaN threshold compares false everywhere and would silently turn early exit off.
    value = as_python(value)
    if is_number(value) and low <= value <= high and (not whole or value % 1 == 0):
        return int(value) if whole else float(value)
    span = f"from {low:g} to {high:g}" if high < FARTHEST else f"of at least {low:g}"
    if low == -FARTHEST:
        span = "that is finite"
    kind = "a whole number" if whole else "a number"
    hint = percent_hint(value) if low == 0 and high <= 2 else ""  # the score is a probability
    raise CriterionError(f"{rule!r} expected {kind} {span} as {option}, got {value!r}{hint}")


def require_each(rule: str, option: str, values: Any, low: float, high: float) -> tuple[float, ...]:
    """The numbers of an option with one for each exit; see `require`."""
    try:
        listed = sequence(option, values, "numbers, one for each exit")
    except ConfigError as error:
        raise CriterionError(f"{rule!r}: {error}") from error
    return tuple(require(rule, option, value, low, high) for value in listed)


def scores(criterion: Criterion, trace: Trace) -> NDArray[np.float64]:
    """Scores `(examples, exits)` of a criterion over a whole trace: the scan of its `score`."""
    criterion.check(trace.exits, trace.kind, trace.gates is not None)
    memory: Memory = {}
    columns = []
    for exit in range(trace.exits):
        column, memory = criterion.score(trace.evidence(exit), memory)
        columns.append(column)
    return np.stack(columns, axis=1)


def first_exit(criterion: Criterion, scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Exit index `(examples,)`, 0-based, at which each row of scores `(examples, exits)` leaves."""
    leave = criterion.leaves(scores, np.arange(scores.shape[1]))
    leave[:, -1] = True
    return leave.argmax(axis=1)


def threshold_grid(
    criterion: Criterion, scores: NDArray[np.floating], max_points: int | None = None
) -> NDArray[np.float64]:
    """Thresholds for every distinct outcome of a rule, from the laxest to the strictest.

    On any data, all examples leave as early as the rule allows with the first threshold, and none leaves early with
    the last. The others are halfway between two scores, far from float noise.

    Args:
        criterion: the rule; its own threshold is ignored.
        scores: `(examples, exits)`, from `scores`.
        max_points: keep both ends and evenly spaced quantiles between them, at most this many in all; None keeps all.

    Returns:
        Thresholds `(points,)`, without repetition.

    Raises:
        CriterionError: the rule has no threshold to choose, or `max_points` is below 2.
    """
    if not criterion.tunable:
        raise CriterionError(f"{criterion.name!r} has no threshold to choose: use another rule")
    if max_points is not None and max_points < 2:
        raise CriterionError(f"expected max_points of at least 2 (both ends), got {max_points}")
    # The last exit takes every example, so its scores decide nothing. Nor does a score below an earlier one.
    decisive = np.unique(best_so_far(criterion, scores)[:, :-1])
    decisive = decisive[np.isfinite(decisive)]  # others pass no threshold
    low, high = criterion.threshold_range
    if criterion.whole:
        # No count reaches E before the last exit.
        grid = np.union1d(decisive[decisive >= low], [scores.shape[1]])
    else:
        between = decisive[:-1] / 2 + decisive[1:] / 2
        # Neighbouring floats have no middle: the upper one separates them.
        between = np.where(between > decisive[:-1], between, decisive[1:])
        grid = np.concatenate([[low], between, [high]])
    if max_points is not None and len(grid) > max_points:
        grid = grid[np.linspace(0, len(grid) - 1, max_points).round().astype(np.intp)]
    return grid[::-1].copy() if criterion.leaves_below else grid


def best_so_far(criterion: Criterion, scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The score most in favour of leaving up to each exit `(examples, exits)`, monotone along the exits."""
    extreme = np.minimum if criterion.leaves_below else np.maximum
    return extreme.accumulate(np.asarray(scores, dtype=np.float64), axis=1)


def finite(values: NDArray[np.floating], what: str, exit: int) -> NDArray[np.float64]:
    """The values in float64, or a `CriterionError` that names the exit where one is NaN or infinite."""
    # NaN compares false with every threshold, so a broken exit would silently keep all rows.
    wide: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    good = np.isfinite(wide)
    if not good.all():
        bad = ~good
        rows = int(bad.reshape(len(bad), -1).any(axis=1).sum())
        raise CriterionError(
            f"expected finite {what}, got NaN or infinity at exit {exit + 1} (counted from 1) in {rows} of "
            f"{len(wide)} examples: check that exit's weights, or run the model in float32"
        )
    return wide


def finite_logits(evidence: Evidence) -> NDArray[np.float64]:
    """Logits `(batch, classes)` in float64."""
    return finite(evidence.logits, "logits", evidence.exit)


def log_probabilities(evidence: Evidence) -> NDArray[np.float64]:
    """Log-probabilities `(batch, classes)` in float64, finite for every finite logit.

    Raises:
        CriterionError: a logit is not finite, or there is only one column (a regression head).
    """
    logits = finite_logits(evidence)
    if logits.shape[1] < 2:
        raise CriterionError(
            f"expected logits of at least two classes, got {logits.shape[1]} at exit {evidence.exit + 1}: "
            "a regression head has no probabilities, use 'patience'"
        )
    return log_softmax(logits)


def confidence(evidence: Evidence) -> NDArray[np.float64]:
    """Largest probability `(batch,)`, in [1/K, 1]."""
    return np.exp(log_probabilities(evidence).max(axis=1))


def answer(evidence: Evidence) -> NDArray[Any]:
    """The exit's answers `(batch,)`: class indices, or values if the logits have one column.

    A silent exit has no answer: -1 or NaN, which equals no other answer.
    """
    logits = finite_logits(evidence)
    answers, none = (logits[:, 0], np.nan) if logits.shape[1] == 1 else (logits.argmax(axis=1), -1)
    return answers if evidence.silent is None else np.where(evidence.silent, none, answers)
