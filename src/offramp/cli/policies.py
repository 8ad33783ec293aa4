"""The policy that a command uses: the one beside the model, or tuned first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp._core.files import policy_file
from offramp.cli.common import note

if TYPE_CHECKING:
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel


def policy_path(model: Path, criterion: str) -> Path:
    """Where the policy of a model for a criterion lies unless told otherwise."""
    return model / policy_file(criterion)


def fit_policy(
    model: SegmentedModel,
    data: Any,
    criterion: str,
    *,
    max_accuracy_drop: float | None = None,
    max_cost: float | None = None,
    temperatures: bool = True,
) -> Policy:
    """The policy for one target, fitted on the calibration split."""
    from offramp.calibration import tune as fit
    from offramp.inference.tracing import trace

    return fit(
        trace(model, data["calibration"], progress=True),
        criterion,
        max_accuracy_drop=max_accuracy_drop,
        max_cost=max_cost,
        metric=data.metrics[0],
        temperatures=temperatures and data.kind == "classification",
    )


@dataclass(frozen=True)
class RuleOptions:
    """When a model leaves.

    Args:
        criterion: the exit rule; a model without a policy for it is tuned first.
        policy: a policy file, instead of the one beside the model.
        max_accuracy_drop: target of the tuning, where there is no policy yet.
    """

    criterion: str = "confidence"
    policy: Path | None = None
    max_accuracy_drop: float = 0.01

    def of(self, folder: Path, model: SegmentedModel, data: Any) -> Policy:
        """The policy that is meant for the model in a folder."""
        from offramp.engine.policy import Policy

        if self.policy is not None:
            return Policy.load(self.policy)
        return policy_for(folder, model, data, self.criterion, self.max_accuracy_drop)


def policy_for(
    folder: Path, model: SegmentedModel, data: Any, criterion: str, max_accuracy_drop: float
) -> Policy:
    """The policy beside a model, tuned first where there is none."""
    from offramp.engine.policy import Policy

    path = policy_path(folder, criterion)
    if not path.exists():
        fit_policy(model, data, criterion, max_accuracy_drop=max_accuracy_drop).save(path)
        note(
            f"{folder.name}: no policy for {criterion!r} yet: tuned for a drop of at most {max_accuracy_drop:g}"
        )
    return Policy.load(path)
