"""What is attacked, chosen alike by `offramp attack` and `offramp bench attack`: model, policy and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token

# The command line resolves inherited annotations in this module.
from offramp.attacks.options import Options, Preserve, Weighting  # noqa: F401
from offramp.cli.common import DataOptions, RuleOptions, Seed, load_for, refuse_calibration
from offramp.cli.paths import PathOption

if TYPE_CHECKING:
    from offramp.data.text_data import TextData
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel


def share_or_number(hint: Any, tokens: Sequence[Token]) -> float | int:
    """`3` is a number, `0.1` and `1.0` are shares; without this the command line reads all of them as floats."""
    try:
        return int(tokens[0].value)
    except ValueError:
        return float(tokens[0].value)


@Parameter(name="*")
@dataclass(frozen=True)
class SearchOptions(Options):
    __doc__ = Options.__doc__

    max_changed_words: Annotated[float | int, Parameter(converter=share_or_number)] = 0.1


@dataclass(frozen=True)
class AttackTarget:
    """A model under a policy, and the rows of the data that it is attacked on."""

    data: TextData
    model: SegmentedModel
    policy: Policy
    rows: Any

    def described(self, search: Options) -> dict[str, Any]:
        """What a record says of it, and of the search."""
        rule = self.policy.criterion
        described = {"examples": len(self.rows), "criterion": rule.name, "threshold": rule.threshold}
        return {**described, **search.to_record()}


@Parameter(name="*")
@dataclass(frozen=True)
class ExampleOptions:
    """Which examples are attacked.

    Args:
        split: the split that the examples come from.
        examples: how many are attacked, chosen by `seed`.
        seed: for the choice of examples, and for what a recipe draws.
    """

    split: str = "validation"
    examples: int = 100
    seed: Seed = 0


@Parameter(name="*")
@dataclass(frozen=True)
class FewExamples(ExampleOptions):
    __doc__ = ExampleOptions.__doc__

    examples: int = 20


def choose_attack_target(
    folder: PathOption,
    source: str,
    reading: DataOptions,
    rule: RuleOptions,
    chosen: ExampleOptions,
    device: str = "auto",
) -> AttackTarget:
    """The model in a folder under its policy, put where `read_model` says, and examples that it was not trained on."""
    refuse_calibration(chosen.split)
    data = reading.load(source)
    model = load_for(folder, data, "calibration", chosen.split, device=device)
    rows = data.sample(chosen.split, chosen.examples, chosen.seed)
    return AttackTarget(data, model, rule.of(folder, model, data), rows)
