"""An attack study as data: trained models × exit rules × recipes, read from YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from offramp._core.errors import ConfigError, unknown_name
from offramp._core.to_json import to_json
from offramp.attacks.options import DEFAULT_JUDGE, RECORD_JUDGES, Options, to_record
from offramp.attacks.recipes import recipe_named
from offramp.criteria import CRITERIA, make_criterion
from offramp.studies.grid import Load, Trial
from offramp.studies.names import short, slug
from offramp.studies.trained_models import Trained, choose, trained_models
from offramp.studies.training.plan import listed, named, whole

KEYS = (
    "name",
    "models",
    "backbones",
    "tasks",
    "strategies",
    "train_size",
    "learning_rate",
    "criteria",
    "recipes",
    "options",
    "max_accuracy_drop",
    "max_cost",
    "examples",
    "split",
    "seed",
    "similarity",
    "transfer",
)
MARKS = ("models", "recipes")  # a file with one of these keys plans attacks
OTHERS = "others"  # in `models`: the sweep for all criteria without one of their own
GATED = "learned"  # the criterion that needs gates
DROP = 0.01
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class PlannedAttack:
    """A recipe with its options, under the name it is shown by.

    Attributes:
        name: `same-word`, or a name of one's own, such as `lambda-0`.
        recipe: a key of `offramp.attacks.RECIPES`.
        options: of `Options`, those that differ from its defaults.
    """

    name: str
    recipe: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyOptions:
    """What all attacks of a study share.

    Attributes:
        target: of the tuning: `max_accuracy_drop` or `max_cost`, and its value.
        examples: attacked of each model, chosen by `seed`, so that all models of a task see the same.
        split: that they come from.
        seed: for the choice of examples, and for what a recipe draws.
        similarity: judge of how close a text stays to its original.
    """

    target: dict[str, float]
    examples: int = 100
    split: str = "validation"
    seed: int = 0
    similarity: str = DEFAULT_JUDGE


@dataclass(frozen=True)
class AttackTrial(Trial):
    """One attack on one model under one exit rule.

    Attributes:
        victim: the trained model.
        source: its task, as `load_data` takes it.
        method: what the model is called in the study.
        criterion: the exit rule; its threshold is tuned on the calibration split.
        attack: the recipe with its options.
        setting: what all attacks of the study share.
    """

    victim: Trained
    source: str
    method: str
    criterion: str
    attack: PlannedAttack
    setting: StudyOptions

    @property
    def folder(self) -> Path:
        """Where its record goes: below the model's folder, exit rule and recipe."""
        return Path(self.victim.folder, slug(self.criterion), slug(self.attack.name))

    @property
    def row(self) -> str:
        """Encoder, task and method."""
        return f"{self.victim.backbone}, {self.victim.task}, {self.method}"

    @property
    def column(self) -> str:
        """The recipe."""
        return self.attack.name

    def to_dict(self) -> dict[str, Any]:
        """The cell as its record keeps it."""
        content = to_json(
            {
                "victim": describe(self.victim, self.method),
                "criterion": self.criterion,
                "attack": describe_attack(self.attack),
                "setting": describe_setting(self.setting),
            }
        )
        assert isinstance(content, dict)
        return content

    def check(self) -> None:
        """Raise `ConfigError` for a recipe or option that there is none of."""
        recipe_named(self.attack.recipe)
        Options.of(**self.attack.options)

    def run(self, output: Path, load: Load) -> None:
        """See `attack_cell.attack_model`."""
        from offramp.studies.attacks.trial import attack_model

        attack_model(self, output, load)

    def drop_texts(self, output: Path) -> None:
        """Leave the texts out of the rows: what else is reported on them stays, but they can be carried nowhere."""
        from offramp.studies.attacks.trial import drop_texts

        drop_texts(output / self.folder)

    def __str__(self) -> str:
        return self.folder.as_posix()


@dataclass(frozen=True)
class AttackPlan:
    """A named set of attacks, and where texts are carried over, of transfers.

    Attributes:
        name: results go to `results/NAME` unless told otherwise.
        cells: in the order in which they are run: seed by seed, so that a study that was stopped is balanced.
    """

    name: str
    cells: tuple[Trial, ...]


def describe(victim: Trained, method: str) -> dict[str, Any]:
    """A model as records keep it: without the folder of its sweep."""
    content = {**asdict(victim), "sweep": victim.sweep.name, "method": method}
    return {name: value for name, value in content.items() if name != "gates"}


def describe_attack(attack: PlannedAttack) -> dict[str, Any]:
    """A recipe with its options as records keep it."""
    return {**asdict(attack), "options": to_record(attack.options)}


def describe_setting(setting: StudyOptions) -> dict[str, Any]:
    """The shared options as records keep them."""
    similarity = RECORD_JUDGES.get(setting.similarity, setting.similarity)
    return {**asdict(setting), "similarity": similarity}


def is_attack_plan(content: Mapping[str, Any]) -> bool:
    """Whether a file's keys plan attacks."""
    return any(key in content for key in MARKS)


def make_attack_plan(content: Mapping[str, Any]) -> AttackPlan:
    """An attack study from its keys.

    Args:
        content: `models` (folder of a sweep whose models were kept; or criterion → folder, with `others` for the
            rest), `tasks` (names, or name → seeds; by default all seeds that there are), `strategies` (names of
            methods of the sweep; by default all), `criteria`, `recipes` (names, or name → options, `recipe` among
            them), `options` (of all recipes), `max_accuracy_drop` or `max_cost` (target of the tuning),
            `examples`, `split`, `seed`, `similarity`, `backbones`, `train_size`, `learning_rate` (which models,
            where there are several), `transfer` (true, or the recipes whose texts are tried on the other models),
            `name`.

    Raises:
        ConfigError: an unknown key, a value that cannot work, or a model that is not there.
    """
    for key in content:
        if key not in KEYS:
            raise ConfigError(unknown_name("key of an attack study", str(key), KEYS))
    missing = [key for key in ("models", "tasks", "criteria", "recipes") if not content.get(key)]
    if missing:
        raise ConfigError(f"an attack study needs {', '.join(missing)}: see configs/same-minilm.yaml")
    cells = sorted(_cells(content), key=lambda cell: cell.victim.seed)
    folders = [cell.folder for cell in cells]
    if len(set(folders)) != len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise ConfigError(f"two cells of the study are one ({twice}): give different names")
    plan: list[Trial] = list(cells)
    if content.get("transfer"):
        from offramp.studies.attacks.transfer_plan import transfer_trials

        plan += transfer_trials([cell for cell in cells if cell.attack.name in _carried(content)])
    return AttackPlan(str(content.get("name", "attacks")), tuple(plan))


def _cells(content: Mapping[str, Any]) -> Iterator[AttackTrial]:
    attacks = [_attack(*item, content.get("options")) for item in named(content["recipes"])]
    criteria = [str(name) for name in listed(content["criteria"])]
    for name in criteria:
        make_criterion(name)
    pools = {name: _pool(content, name) for name in criteria}
    setting = _setting(content)
    first = [model for pool in pools.values() for model in pool]
    methods = [str(name) for name in listed(content.get("strategies"))]
    methods = methods or list(dict.fromkeys(model.method for model in first))
    backbones = [str(name) for name in listed(content.get("backbones"))]
    backbones = backbones or list(dict.fromkeys(model.backbone for model in first))
    for (task, seeds), backbone, method in product(named(content["tasks"]), backbones, methods):
        for seed in _seeds(seeds, task, first):
            for criterion, attack in product(criteria, attacks):
                victim = choose(pools[criterion], backbone, task, method, seed)
                yield AttackTrial(_fitting(victim, criterion), task, method, criterion, attack, setting)


def _carried(content: Mapping[str, Any]) -> list[str]:
    """Names of the recipes whose texts are tried on the other models."""
    names = [name for name, _ in named(content["recipes"])]
    if content["transfer"] is True:
        return names
    wanted = [str(name) for name in listed(content["transfer"])]
    for name in wanted:
        if name not in names:
            raise ConfigError(unknown_name("recipe in transfer", name, names))
    return wanted


def _fitting(victim: Trained, criterion: str) -> Trained:
    """The model, if it has gates where the criterion looks at them."""
    if criterion == GATED and not victim.gates:
        raise ConfigError(
            f"the criterion 'learned' needs gates, but {victim.sweep / victim.folder} was trained without: leave "
            "it out of criteria, or name a sweep with gates, `models: {others: …, learned: …}`"
        )
    return victim


def _pool(content: Mapping[str, Any], criterion: str) -> list[Trained]:
    """The models that a criterion is tried on."""
    given = content["models"]
    if isinstance(given, Mapping):
        known = (*CRITERIA, OTHERS)
        for name in given:
            if name not in known:
                raise ConfigError(unknown_name("criterion in models", str(name), known))
        if criterion not in given and OTHERS not in given:
            raise ConfigError(
                f"models names no sweep for {criterion!r}: add it, or '{OTHERS}' for all the rest"
            )
        given = given.get(criterion, given.get(OTHERS))
    models = trained_models(str(given))
    for key in ("train_size", "learning_rate"):
        if content.get(key) is not None:
            wanted = None if content[key] == "all" else _number(content[key], key)
            models = [model for model in models if getattr(model, key) == wanted]
    if not models:
        raise ConfigError(f"no model below {given} has that train_size and learning_rate: leave them out")
    return models


def _seeds(given: Any, task: str, models: list[Trained]) -> list[int]:
    seeds = [whole(seed, "seeds of a task") for seed in listed(given)]
    return seeds or sorted({model.seed for model in models if model.task == short(task)})


def _attack(name: str, given: Any, shared: Mapping[str, Any] | None) -> PlannedAttack:
    for options in (given or {}, shared or {}):
        if not isinstance(options, Mapping):
            raise ConfigError(f"expected options of {name!r}, one `name: value` a line, got {options!r:.80}")
    own = dict(given or {})
    recipe = str(own.pop("recipe", name))
    return PlannedAttack(name, recipe, {**(shared or {}), **own})


def _setting(content: Mapping[str, Any]) -> StudyOptions:
    given = {key: content[key] for key in ("max_accuracy_drop", "max_cost") if content.get(key) is not None}
    if len(given) > 1:
        raise ConfigError("a study is tuned for max_accuracy_drop or for max_cost, not both: leave one out")
    split = str(content.get("split", "validation"))
    if split not in SPLITS:
        raise ConfigError(unknown_name("split to attack", split, SPLITS))
    return StudyOptions(
        {key: _number(value, key) for key, value in (given or {"max_accuracy_drop": DROP}).items()},
        whole(content.get("examples", 100), "examples", least=1),
        split,
        whole(content.get("seed", 0), "seed"),
        str(content.get("similarity", DEFAULT_JUDGE)),
    )


def _number(given: Any, key: str) -> float:
    """A number; YAML reads `5e-5` (without a point) as text."""
    try:
        return float(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected a number as {key}, got {given!r:.80}") from error
