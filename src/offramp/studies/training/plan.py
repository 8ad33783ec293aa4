"""A sweep as data: strategies × backbones × tasks × training sizes × learning rates × seeds, read from YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from offramp._core.errors import ConfigError, unknown_name
from offramp.studies.plan_models import ByName, PlanModel, Several
from offramp.studies.training.trial import Method, TrainingTrial
from offramp.training.options import TrainingOptions
from offramp.training.strategies import STRATEGIES

WHOLE = ("all", "whole")  # training sizes that mean every example
EVERY = ""  # in rates by method: those of all methods

Layer = Annotated[int, Field(ge=1)]
Size = Annotated[
    Annotated[int, Field(ge=1)] | None, BeforeValidator(lambda size: None if size in WHOLE else size)
]
Rate = Annotated[float, Field(strict=False, gt=0, lt=1)]  # YAML reads `5e-5`, without a point, as text
Share = Annotated[float, Field(ge=0, le=1)]


class MethodKeys(BaseModel):
    """Keys of a method in `strategies`; all others are options of its strategy."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    strategy: str | None = None
    gates: bool = False
    criterion: str | None = None

    def method(self, name: str) -> Method:
        """The method under its name, which is the strategy's by default."""
        return Method(name, self.strategy or name, self.model_extra or {}, self.gates, self.criterion)


class SweepKeys(PlanModel):
    """Keys of a sweep's YAML file.

    Attributes:
        name: results go to `results/NAME` by default.
        backbones: names, or name → exit layers.
        tasks: names, or name → training sizes.
        strategies: names, or name → options, among them `strategy`, `gates` and `criterion`.
        train_sizes: numbers or "all".
        seeds: for examples, heads and order.
        learning_rate: a number, several, or method → one or several.
        tuned_on: folder of a sweep over learning rates, whose best ones are taken.
        training: options of `TrainingOptions`.
        criterion: exit rule of the curves.
        pooling, max_length: of the models.
        conflict: shares of the training at which gradient conflict is measured, such as [0, 0.5, 1].
    """

    kind = "a sweep"

    name: str = "sweep"
    backbones: Annotated[ByName[Several[Layer] | None], Field(min_length=1)]
    tasks: Annotated[ByName[Several[Size] | None], Field(min_length=1)]
    strategies: Annotated[ByName[MethodKeys | None], Field(min_length=1)]
    train_sizes: Several[Size] = ()
    seeds: Annotated[Several[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)] = (0,)
    learning_rate: dict[str, Several[Rate]] = Field(default_factory=dict)
    tuned_on: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    criterion: str = "confidence"
    pooling: str | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    conflict: Several[Share] = ()

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _rates_by_method(cls, given: Any) -> dict[str, Any]:
        return {str(k): v for k, v in given.items()} if isinstance(given, Mapping) else {EVERY: given}

    @field_validator("training")
    @classmethod
    def _training_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        of_methods = ("learning_rate", "strategy_options")
        names = [option.name for option in fields(TrainingOptions) if option.name not in of_methods]
        for name in given:
            if name not in names:
                raise ConfigError(unknown_name("option in training", str(name), names))
        TrainingOptions(**given)
        return given

    @model_validator(mode="after")
    def _rates_fit(self) -> Self:
        """Learning rates are given or tuned, and those by method name every method and no other."""
        if self.tuned_on and self.learning_rate:
            raise ConfigError(
                "a sweep has a learning_rate or is tuned_on another sweep, not both: leave one out"
            )
        if self.learning_rate and EVERY not in self.learning_rate:
            for name in sorted(self.learning_rate.keys() ^ self.strategies.keys()):
                names = self.strategies if name in self.learning_rate else self.learning_rate
                raise ConfigError(unknown_name("method in learning_rate", name, names))
        return self

    def trials(self) -> Iterator[TrainingTrial]:
        """Every combination of the keys."""
        methods = [(keys or MethodKeys()).method(name) for name, keys in self.strategies.items()]
        alone = [
            name for name, strategy in STRATEGIES.items() if strategy.trains_alone
        ]  # no layer to conflict in
        for task, sizes in self.tasks.items():
            sizes = (self.train_sizes if sizes is None else sizes) or (None,)
            for size, (backbone, exits), method in product(sizes, self.backbones.items(), methods):
                rates = self.learning_rate.get(method.name, self.learning_rate.get(EVERY)) or (None,)
                for rate, seed in product(rates, self.seeds):
                    yield TrainingTrial(
                        backbone,
                        exits,
                        task,
                        method,
                        size,
                        seed,
                        rate,
                        training=self.training,
                        criterion=self.criterion,
                        pooling=self.pooling,
                        max_length=self.max_length,
                        conflict=() if method.strategy in alone else self.conflict,
                    )


@dataclass(frozen=True)
class TrainingSweep:
    """A named set of trials.

    Attributes:
        name: results go to `results/NAME` by default.
        trials: in the order in which they run: seed by seed, so that an unfinished sweep is balanced.
        tuned_on: folder of the sweep whose best learning rates are taken, or None.
    """

    name: str
    trials: tuple[TrainingTrial, ...]
    tuned_on: Path | None = None


def make_sweep(content: Mapping[str, Any]) -> TrainingSweep:
    """A sweep from its keys.

    Args:
        content: keys of `SweepKeys`.

    Raises:
        ConfigError: an unknown key, a value that cannot work, or two trials with the same folder.
    """
    keys = SweepKeys.read(content)
    trials = tuple(sorted(keys.trials(), key=lambda trial: trial.seed))
    folder, count = Counter(trial.folder for trial in trials).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            f"two trials of the sweep are the same ({folder}): give different names, sizes and seeds"
        )
    return TrainingSweep(keys.name, trials, Path(keys.tuned_on) if keys.tuned_on else None)
