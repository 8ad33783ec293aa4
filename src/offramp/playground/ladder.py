"""The way of a text through the exits, as what a page shows: a pure function of the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from offramp._core.numbers import softmax
from offramp._core.trace import Trace
from offramp.criteria import scores
from offramp.criteria.base import FARTHEST
from offramp.engine.policy import Policy

MOST_CLASSES = 4  # shown at an exit; of more classes, the likeliest


@dataclass(frozen=True)
class Rung:
    """One exit, for one text.

    Attributes:
        layer: layer of the exit, counted from 1; 0 for the exit before the first layer.
        fate: whether the text passes the exit, leaves there, or would never have reached it.
        answer: class name, or the value for regression.
        classes: some classes with their calibrated probabilities; none for regression.
        hidden: the number of classes that are not shown.
        score: of the exit rule; None where layer 0 recognises nothing of the text, which then passes by any rule.
        threshold: that the score is compared with; None at the last exit, where every text leaves.
        cost: FLOPs spent if the text leaves here, as a share of the full model's.
    """

    layer: int
    fate: Literal["passed", "left", "unreached"]
    answer: str
    classes: tuple[tuple[str, float], ...]
    hidden: int
    score: float | None
    threshold: float | None
    cost: float


@dataclass(frozen=True)
class Ladder:
    """All exits, for one text.

    Attributes:
        rungs: from the first exit to the last.
        answer: class name, or the value for regression; with recall, of an earlier exit than the one taken.
        probability: calibrated, of the answer; None for regression.
        left: index of the exit taken.
        answered: index of the exit that answers.
        scale: the range that scores and thresholds are drawn on.
    """

    rungs: tuple[Rung, ...]
    answer: str
    probability: float | None
    left: int
    answered: int
    scale: tuple[float, float]

    @property
    def leaving(self) -> Rung:
        """The exit taken."""
        return self.rungs[self.left]


def climb(trace: Trace, policy: Policy, labels: Sequence[str]) -> Ladder:
    """The way of the only text of a trace under a policy.

    Args:
        trace: of one text.
        policy: when to leave.
        labels: class names; empty for regression.

    Raises:
        CriterionError: the policy was made for another model.
    """
    decisions = policy.decide(trace)
    left, answered = int(decisions.exit[0]), int(decisions.answer_exit[0])
    scaled = trace.scaled(policy.temperatures)
    table = scores(policy.criterion, scaled)[0].tolist()
    thresholds = [float(policy.criterion.threshold_at(exit)) for exit in range(trace.exits - 1)]
    probabilities = softmax(scaled.logits[0]) if labels else np.empty((trace.exits, 0))
    rungs = []
    for exit, layer in enumerate(trace.exit_layers):
        value = trace.predictions()[0, exit]
        shown = strongest(probabilities[exit])
        rungs.append(
            Rung(
                layer=layer,
                fate="passed" if exit < left else "left" if exit == left else "unreached",
                answer=labels[int(value)] if labels else f"{value:.3g}",
                classes=tuple((labels[k], float(probabilities[exit, k])) for k in shown),
                hidden=len(labels) - len(shown),
                score=table[exit] if np.isfinite(table[exit]) else None,
                threshold=thresholds[exit] if exit < trace.exits - 1 else None,
                cost=float(trace.flops[0, exit] / trace.full_flops[0]),
            )
        )
    return Ladder(
        rungs=tuple(rungs),
        answer=rungs[answered].answer,
        probability=float(decisions.probability[0]) if labels else None,
        left=left,
        answered=answered,
        scale=scale(policy, [*filter(np.isfinite, table), *thresholds]),
    )


def strongest(probabilities: Sequence[float]) -> list[int]:
    """The classes to show: all in their order if they are few, else the likeliest first."""
    if len(probabilities) <= MOST_CLASSES:
        return list(range(len(probabilities)))
    return np.argsort(-np.asarray(probabilities), kind="stable")[:MOST_CLASSES].tolist()


def scale(policy: Policy, values: Sequence[float] = ()) -> tuple[float, float]:
    """The range that scores and thresholds of a rule are drawn on, wide enough for the values.

    A threshold that lies far outside, which makes every text leave or none, does not stretch it.
    """
    rule, exits = policy.criterion, len(policy.exit_layers)
    low, high = rule.threshold_range
    if rule.whole:
        return 0.0, float(exits)
    if high <= 2:  # a share; above 1 it is the end at which nothing, or everything, leaves
        return 0.0, 1.0
    finite = [
        value for value in (*values, rule.default_threshold) if abs(value) < FARTHEST / 2 and value < high
    ]
    return (low if low > -FARTHEST else min(0.0, *finite)), max(1.0, *finite)
