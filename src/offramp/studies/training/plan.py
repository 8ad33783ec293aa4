"""A sweep as data: strategies × backbones × tasks × training sizes × learning rates × seeds, read from YAML."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from offramp._core.errors import ConfigError, DataError, unknown_name
from offramp._core.paths import UserPath
from offramp.studies.grid import Plan, missing_trials, short
from offramp.studies.plan_models import ByName, PlanModel, Several
from offramp.studies.training.results import METHOD, load_results, rate_frame, tried_rates
from offramp.studies.training.trial import Method, TrainingTrial
from offramp.training.options import PLAN_OPTIONS, TrainingOptions
from offramp.training.strategies import STRATEGIES

WHOLE = ("all", "whole")  # training sizes that mean every example
EVERY = ""  # in rates by method: those of all methods

Layer = Annotated[int, Field(ge=0)]  # 0 for an exit before the first layer
Size = Annotated[
    Annotated[int, Field(ge=1)] | None, BeforeValidator(lambda size: None if size in WHOLE else size)
]
Rate = Annotated[float, Field(strict=False, gt=0, lt=1)]  # YAML reads `5e-5`, without a point, as text
Share = Annotated[float, Field(ge=0, le=1)]


class MethodKeys(BaseModel):
    """Keys of a method in `strategies`; all others are options of its strategy.

    Attributes:
        strategy: a key of `STRATEGIES`; the method's name by default.
        gates: whether its models have learned gates.
        criterion: exit rule of its curve; the sweep's by default.
        training: options of `TrainingOptions` that replace the sweep's.
        tuned_as: the method whose rate is taken from `tuned_on`; itself by default.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    strategy: str | None = None
    gates: bool = False
    criterion: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    tuned_as: str | None = None

    @field_validator("training")
    @classmethod
    def _training_options(cls, given: dict[str, Any]) -> dict[str, Any]:
        return check_training(given)


def check_training(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `TrainingOptions` that a plan sets; `ConfigError` for an unknown one or an invalid value."""
    for name in given:
        if name not in PLAN_OPTIONS:
            raise ConfigError(unknown_name("option in training", str(name), PLAN_OPTIONS))
    TrainingOptions(**given)
    return given


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
        return check_training(given)

    @model_validator(mode="after")
    def _rates_fit(self) -> Self:
        """Learning rates are given or tuned, and those by method name every method and no other."""
        if self.tuned_on and self.learning_rate:
            raise ConfigError(
                "a sweep has a learning_rate or is tuned_on another sweep, not both: leave one out"
            )
        for name, keys in self.strategies.items():
            if keys and keys.tuned_as and not self.tuned_on:
                raise ConfigError(
                    f"{name} is tuned_as {keys.tuned_as}, but the sweep has no tuned_on: give one"
                )
        if self.learning_rate and EVERY not in self.learning_rate:
            for name in sorted(self.learning_rate.keys() ^ self.strategies.keys()):
                names = self.strategies if name in self.learning_rate else self.learning_rate
                raise ConfigError(unknown_name("method in learning_rate", name, names))
        return self

    def trials(self) -> Iterator[TrainingTrial]:
        """Every combination of the keys."""
        methods = []
        for name, keys in self.strategies.items():
            own = keys or MethodKeys()
            options = own.model_extra or {}
            method = Method(name, own.strategy or name, options, own.gates, own.criterion, own.training)
            methods.append(method)
        shared = self.model_dump(include={"training", "criterion", "pooling", "max_length"})
        # Models that share no layer have none to conflict in.
        alone = [name for name, strategy in STRATEGIES.items() if strategy.trains_alone]
        for task, sizes in self.tasks.items():
            sizes = (self.train_sizes if sizes is None else sizes) or (None,)
            for size, (backbone, exits), method in product(sizes, self.backbones.items(), methods):
                rates = self.learning_rate.get(method.name, self.learning_rate.get(EVERY)) or (None,)
                for rate, seed in product(rates, self.seeds):
                    conflict = () if method.strategy in alone else self.conflict
                    yield TrainingTrial(
                        backbone, exits, task, method, size, seed, rate, conflict=conflict, **shared
                    )


def make_sweep(content: Mapping[str, Any]) -> Plan:
    """A sweep from keys of `SweepKeys`.

    Raises:
        ConfigError: an unknown key, a value that cannot work, two trials with the same folder, learning rates that are
            missing in the sweep that this one is tuned on, or a task that was tuned on: it would flatter the methods.
    """
    keys = SweepKeys.read(content)
    trials = sorted(keys.trials(), key=lambda trial: trial.seed)
    if keys.tuned_on:
        rates = tuned_rates(keys.tuned_on)
        tasks = {result.setting.task for result in load_results(keys.tuned_on)}
        as_method = {name: own.tuned_as for name, own in keys.strategies.items() if own and own.tuned_as}
        trials = [
            _tuned(trial, as_method.get(trial.method.name, trial.method.name), keys.tuned_on, rates, tasks)
            for trial in trials
        ]
    return Plan(keys.name, tuple(trials))


def tuned_rates(folder: UserPath) -> dict[tuple[str, str], float]:
    """The best learning rate by encoder and method, from a sweep over learning rates.

    Raises:
        ConfigError: no such sweep, one without several rates, or one that is not finished.
    """
    try:
        rates = tried_rates(rate_frame(load_results(folder)))
    except DataError as error:
        raise ConfigError(
            f"learning rates are to be taken from {folder}, but: {error}; run that sweep first, or give learning_rate"
        ) from error
    if missing := missing_trials(folder):
        raise ConfigError(f"{missing[0]} has no record yet in {folder}: finish that sweep first")
    counts = rates.groupby(METHOD, sort=False)["models"].nunique()
    for backbone, method in counts.index[counts > 1]:
        raise ConfigError(
            f"not every learning rate of {method} on {backbone} has been tried on every task and seed in {folder}: "
            "finish that sweep first"
        )
    return {(row.backbone, row.method): row.learning_rate for row in rates.query("best").itertuples()}


def _tuned(
    trial: TrainingTrial,
    method: str,
    folder: str,
    rates: Mapping[tuple[str, str], float],
    tasks: Collection[str],
) -> TrainingTrial:
    """The trial with the best learning rate of a method, which was chosen on some tasks of the sweep in a folder."""
    backbone = short(trial.backbone)
    if (backbone, method) not in rates:
        raise ConfigError(
            f"{folder} has no learning rates for {method} on {backbone}: add them to that sweep"
        )
    if short(trial.task) in tasks:
        raise ConfigError(f"{trial.task} was used to choose learning rates in {folder}: leave it out here")
    return replace(trial, learning_rate=rates[backbone, method])
