"""The policy that a command uses: the one beside the model, or tuned first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from offramp._core.files import policy_file
from offramp.cli.common import CriterionName, note
from offramp.engine.policy import Policy

if TYPE_CHECKING:
    from offramp.data.text_data import TextData
    from offramp.model.base import SegmentedModel


@Parameter(name="*")
@dataclass(frozen=True)
class RuleOptions:
    """When a model leaves.

    Args:
        policy: a policy file, instead of the one beside the model.
        max_accuracy_drop: target of the tuning, if there is no policy yet.
    """

    criterion: CriterionName = "confidence"
    policy: Path | None = None
    max_accuracy_drop: float = 0.01

    def of(self, folder: Path, model: SegmentedModel, data: TextData) -> Policy:
        """The policy of these options for the model in a folder."""
        if self.policy is not None:
            return Policy.load(self.policy)
        return policy_for(folder, model, data, self.criterion, self.max_accuracy_drop)


def policy_for(
    folder: Path, model: SegmentedModel, data: TextData, criterion: str, max_accuracy_drop: float
) -> Policy:
    """The policy beside a model, tuned first where there is none."""
    from offramp.calibration import tune

    path = folder / policy_file(criterion)
    if not path.exists():
        tune(model, data, criterion, max_accuracy_drop=max_accuracy_drop).save(path)
        note(
            f"{folder.name}: no policy for {criterion!r} yet: tuned for a drop of at most {max_accuracy_drop:g}"
        )
    return Policy.load(path)
