"""An attack study as data: trained models × exit rules × recipes, read from YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from offramp._core.errors import ConfigError, unknown_name
from offramp.attacks.options import DEFAULT_JUDGE
from offramp.calibration.target import TuningTarget
from offramp.criteria import CRITERIA, make_criterion
from offramp.studies.attacks.transfer import transfer_trials
from offramp.studies.attacks.trial import AttackTrial
from offramp.studies.attacks.victims import PlannedAttack, StudyOptions
from offramp.studies.grid import Plan, short
from offramp.studies.plan_models import ByName, PlanModel, Several
from offramp.studies.trained_models import Trained, choose, trained_models

OTHERS = "others"  # in `models`: the sweep for all criteria without a sweep of their own

Seed = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(strict=False)]  # YAML reads `5e-5`, without a point, as text
Unset = BeforeValidator(lambda value: None if value == "all" else value)


class RecipeKeys(BaseModel):
    """Keys of an attack in `recipes`; all others are options of its recipe."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    recipe: str | None = None


class AttackStudyKeys(PlanModel):
    """Keys of an attack study's YAML file.

    Attributes:
        name: results go to `results/NAME` by default.
        models: folder of a sweep whose models were kept; or criterion → folder, with `others` for the rest.
        tasks: names, or name → seeds; by default all seeds that the models of the task have.
        strategies: names of the sweep's methods; by default all.
        backbones: by default all.
        train_size, learning_rate: of the models, if there are several; "all" selects models without such a value.
        criteria: exit rules.
        recipes: names, or name → options, `recipe` among them.
        options: of all recipes.
        max_accuracy_drop, max_cost: target of the tuning, one of them.
        examples, split, seed, similarity: see `StudyOptions`.
        transfer: true, or the names in `recipes` whose texts are run on the other models.
    """

    kind = "an attack study"
    example = "configs/same-minilm.yaml"

    name: str = "attacks"
    models: Annotated[dict[str, str], Field(min_length=1)]
    tasks: Annotated[ByName[Several[Seed] | None], Field(min_length=1)]
    criteria: Annotated[Several[str], Field(min_length=1)]
    recipes: Annotated[ByName[RecipeKeys | None], Field(min_length=1)]
    strategies: Several[str] = ()
    backbones: Several[str] = ()
    train_size: Annotated[int | None, Unset] = None
    learning_rate: Annotated[Number | None, Unset] = None
    options: dict[str, Any] = Field(default_factory=dict)
    max_accuracy_drop: Number | None = None
    max_cost: Number | None = None
    examples: Annotated[int, Field(ge=1)] = 100
    split: Literal["validation", "test"] = "validation"
    seed: Seed = 0
    similarity: str = DEFAULT_JUDGE
    transfer: Several[str] = ()

    @field_validator("models", mode="before")
    @classmethod
    def _models_by_criterion(cls, given: Any) -> dict[str, Any]:
        models = dict(given) if isinstance(given, Mapping) else {OTHERS: given}
        for name in models:
            if name not in (*CRITERIA, OTHERS):
                raise ConfigError(unknown_name("criterion in models", str(name), (*CRITERIA, OTHERS)))
        return models

    @field_validator("transfer", mode="before")
    @classmethod
    def _all_or_none(cls, given: Any, info: ValidationInfo) -> Any:
        return (list(info.data.get("recipes", ())) if given else ()) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        if self.max_accuracy_drop is not None and self.max_cost is not None:
            raise ConfigError(
                "a study is tuned for max_accuracy_drop or for max_cost, not both: leave one out"
            )
        TuningTarget(self.max_accuracy_drop, self.max_cost)
        for criterion in self.criteria:
            make_criterion(criterion)
            if criterion not in self.models and OTHERS not in self.models:
                raise ConfigError(
                    f"models names no sweep for {criterion!r}: add it, or '{OTHERS}' for all the rest"
                )
        for recipe in self.transfer:
            if recipe not in self.recipes:
                raise ConfigError(unknown_name("recipe in transfer", recipe, self.recipes))
        return self

    def trials(self) -> Iterator[AttackTrial]:
        """Every combination of the keys; `ConfigError` for a model that does not exist, or lacks gates."""
        attacks = []
        for name, keys in self.recipes.items():
            own = keys or RecipeKeys()
            attacks.append(
                PlannedAttack(name, own.recipe or name, {**self.options, **(own.model_extra or {})})
            )
        pools = {criterion: self._pool(criterion) for criterion in self.criteria}
        models = [model for pool in pools.values() for model in pool]
        methods = self.strategies or dict.fromkeys(model.method for model in models)
        backbones = self.backbones or dict.fromkeys(model.backbone for model in models)
        target = self.model_dump(include={"max_accuracy_drop", "max_cost"}, exclude_none=True)
        shared = self.model_dump(include={"examples", "split", "seed", "similarity"})
        setting = StudyOptions(target or {"max_accuracy_drop": 0.01}, **shared)
        for (task, given), backbone, method in product(self.tasks.items(), backbones, methods):
            seeds = given or sorted({model.seed for model in models if model.task == short(task)})
            for seed, criterion, attack in product(seeds, self.criteria, attacks):
                victim = choose(pools[criterion], backbone, task, method, seed)
                if CRITERIA[criterion].needs_gate and not victim.gates:
                    raise ConfigError(
                        f"the criterion {criterion!r} needs gates, but {victim.sweep / victim.folder} was trained "
                        f"without: leave it out of criteria, or name a sweep with gates, `models: {{{OTHERS}: …, "
                        f"{criterion}: …}}`"
                    )
                yield AttackTrial(
                    victim=victim,
                    source=task,
                    method=method,
                    criterion=criterion,
                    attack=attack,
                    setting=setting,
                )

    def _pool(self, criterion: str) -> list[Trained]:
        """The models that a criterion is tried on."""
        folder = self.models.get(criterion) or self.models[OTHERS]
        filters = [key for key in ("train_size", "learning_rate") if key in self.model_fields_set]
        wanted = [getattr(self, key) for key in filters]
        models = [m for m in trained_models(folder) if [getattr(m, key) for key in filters] == wanted]
        if not models:
            raise ConfigError(
                f"no model below {folder} has that train_size and learning_rate: leave them out"
            )
        return models


def is_attack_plan(content: Mapping[str, Any]) -> bool:
    """Whether a file's keys plan attacks."""
    return "models" in content or "recipes" in content


def make_attack_plan(content: Mapping[str, Any]) -> Plan:
    """An attack study from keys of `AttackStudyKeys`.

    Raises:
        ConfigError: an unknown key, a value that cannot work, a model that does not exist, or two trials with the
            same folder.
    """
    keys = AttackStudyKeys.read(content)
    attacks = sorted(keys.trials(), key=lambda trial: trial.victim.seed)
    transfers = transfer_trials([trial for trial in attacks if trial.attack.name in keys.transfer])
    return Plan(keys.name, (*attacks, *transfers))
