"""A sweep as data: strategies × backbones × tasks × training sizes × learning rates × seeds, read from YAML."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import yaml

from offramp._core.errors import ConfigError, unknown_name
from offramp._core.to_json import to_json
from offramp.criteria import make_criterion
from offramp.studies.grid import Load, Trial
from offramp.studies.names import short, slug
from offramp.training.options import TrainingOptions

RUN = "run"  # folder of a cell's training
KEYS = (
    "name",
    "backbones",
    "tasks",
    "strategies",
    "train_sizes",
    "seeds",
    "learning_rate",
    "tuned_on",
    "training",
    "criterion",
    "pooling",
    "max_length",
    "conflict",
)
WHOLE = ("all", "whole")
T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """A strategy with its options, under the name it is shown by.

    Attributes:
        name: `joint`, or a name of one's own, such as `joint-linear`.
        strategy: a key of `offramp.training.strategies.STRATEGIES`.
        options: of the strategy.
        gates: whether the exits carry learned gates.
        criterion: exit rule of its curve; None for the sweep's.
    """

    name: str
    strategy: str
    options: dict[str, Any] = field(default_factory=dict)
    gates: bool = False
    criterion: str | None = None


@dataclass(frozen=True)
class TrainingTrial(Trial):
    """One model of a sweep: all that its weights depend on.

    Attributes:
        backbone: packaged name, folder or hub name.
        exits: exit layers from 1; None for the backbone's default.
        task: a source for `load_data`.
        method: how it is trained.
        train_size: training examples, chosen by `seed`; None for all.
        seed: for examples, heads and order.
        learning_rate: peak; None for the default by width.
        training: the other options of `TrainingOptions`.
        criterion: exit rule of the curves, where the method has none of its own.
        pooling, max_length: of the model; None for the backbone's default.
        conflict: shares of the training at which gradient conflict is measured; of methods whose exits share layers.
    """

    backbone: str
    exits: tuple[int, ...] | None
    task: str
    method: Method
    train_size: int | None
    seed: int
    learning_rate: float | None
    training: dict[str, Any] = field(default_factory=dict)
    criterion: str = "confidence"
    pooling: str | None = None
    max_length: int | None = None
    conflict: tuple[float, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its record goes, below the sweep's folder."""
        size = "all" if self.train_size is None else self.train_size
        rate = "default" if self.learning_rate is None else f"{self.learning_rate:g}"
        return Path(
            slug(short(self.backbone)),
            slug(short(self.task)),
            slug(self.method.name),
            f"n{size}-lr{rate}-seed{self.seed}",
        )

    @property
    def rule(self) -> str:
        """Name of the exit rule of its curve."""
        return self.method.criterion or self.criterion

    @property
    def options(self) -> TrainingOptions:
        """How it is fine-tuned."""
        chosen = {"learning_rate": self.learning_rate, "strategy_options": self.method.options}
        return TrainingOptions(**{**self.training, **chosen})

    def to_dict(self) -> dict[str, Any]:
        """The cell as a record keeps it: the same from whatever folder a sweep is run."""
        content = {**asdict(self), "backbone": short(self.backbone), "task": short(self.task)}
        if not self.conflict:  # as in records from before there was such a thing
            del content["conflict"]
        return {key: to_json(value) for key, value in content.items()}

    @property
    def row(self) -> str:
        """Encoder, task and number of training examples."""
        size = "all" if self.train_size is None else f"{self.train_size:,}"
        return f"{self.folder.parts[0]}, {self.folder.parts[1]}, {size}"

    @property
    def column(self) -> str:
        """The method."""
        return self.method.name

    def check(self) -> None:
        """Raise `ConfigError` or `CriterionError` for a strategy, option or exit rule that there is none of."""
        from offramp.training.strategies import make_strategy

        make_strategy(self.method.strategy, **self.method.options)
        make_criterion(self.rule)

    def run(self, output: Path, load: Load) -> None:
        """See `sweep.train_cell`."""
        from offramp.studies.training.trial import run_training_trial

        run_training_trial(self, output, load)

    def tidy(self, output: Path) -> None:
        """Delete the trained model."""
        shutil.rmtree(output / self.folder / RUN, ignore_errors=True)


@dataclass(frozen=True)
class TrainingSweep:
    """A named set of cells.

    Attributes:
        name: results go to `results/NAME` unless told otherwise.
        trials: in the order in which they are run: seed by seed, so that a sweep that was stopped is balanced.
        tuned_on: folder of the sweep whose best learning rates are taken, or None.
    """

    name: str
    trials: tuple[TrainingTrial, ...]
    tuned_on: Path | None = None


def read_sweep(path: str | Path) -> TrainingSweep:
    """Read a sweep's YAML file; errors as in `read_keys` and `make_sweep`."""
    return make_sweep(read_keys(path))


def read_keys(path: str | Path) -> dict[str, Any]:
    """The keys of a YAML file that plans cells, `name` among them: the file's own unless it gives another.

    Raises:
        ConfigError: no such file, or one that is no YAML mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no sweep at {path}: give a YAML file, see the folder configs") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} must hold a sweep's keys ({', '.join(KEYS)}), got {type(content).__name__}"
        )
    return {"name": Path(path).stem, **content}


def make_sweep(content: Mapping[str, Any]) -> TrainingSweep:
    """A sweep from its keys.

    Args:
        content: `backbones` (names, or name → exit layers), `tasks` (names, or name → training sizes),
            `strategies` (names, or name → options, among them `strategy`, `gates` and `criterion`),
            `train_sizes` (numbers or "all"), `seeds`, `learning_rate` (a number, several, or method → number),
            `tuned_on` (folder of a sweep over learning rates), `training` (options of `TrainingOptions`),
            `criterion`, `pooling`, `max_length`, `conflict` (shares of the training, such as [0, 0.5, 1]), `name`.

    Raises:
        ConfigError: an unknown key, or a value that cannot work.
    """
    for key in content:
        if key not in KEYS:
            raise ConfigError(unknown_name("key of a sweep", str(key), KEYS))
    needed = {key: content.get(key) for key in ("backbones", "tasks", "strategies")}
    missing = [
        key
        for key, value in {**needed, "seeds": content.get("seeds", [0])}.items()
        if value in (None, [], {}, "")
    ]
    if missing:
        raise ConfigError(f"a sweep needs {', '.join(missing)}: see the folder configs for examples")
    if content.get("tuned_on") and content.get("learning_rate") is not None:
        raise ConfigError("a sweep has a learning_rate or is tuned_on another sweep, not both: leave one out")
    cells = tuple(sorted(_cells(content), key=lambda cell: cell.seed))
    folders = [cell.folder for cell in cells]
    if len(set(folders)) != len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise ConfigError(f"two cells of the sweep are one ({twice}): give different names, sizes and seeds")
    tuned_on = _optional(_text, content, "tuned_on")
    return TrainingSweep(
        _text(content.get("name", "sweep"), "name"), cells, Path(tuned_on) if tuned_on else None
    )


def _cells(content: Mapping[str, Any]) -> Iterator[TrainingTrial]:
    shared: dict[str, Any] = {
        "training": _training(content.get("training") or {}),
        "criterion": _text(content.get("criterion", "confidence"), "criterion"),
        "pooling": _optional(_text, content, "pooling"),
        "max_length": _optional(whole, content, "max_length"),
        "conflict": tuple(_share(share) for share in listed(content.get("conflict"))),
    }
    methods = [_method(*item) for item in named(content["strategies"])]
    backbones = [(name, _layers(exits)) for name, exits in named(content["backbones"])]
    seeds = [whole(seed, "seeds", most=2**31 - 1) for seed in listed(content.get("seeds", 0))]
    _known_methods(content.get("learning_rate"), methods)
    for task, given in named(content["tasks"]):
        sizes = listed(content.get("train_sizes") if given is None else given) or [None]
        for size, (backbone, exits), method in product(map(_size, sizes), backbones, methods):
            for rate, seed in product(_rates(content.get("learning_rate"), method), seeds):
                own = {**shared, "conflict": ()} if method.strategy == "multi_model" else shared
                yield TrainingTrial(backbone, exits, task, method, size, seed, rate, **own)


def named(given: Any) -> list[tuple[str, Any]]:
    """Names with what belongs to each: from a mapping, a list of names, or one name."""
    if isinstance(given, Mapping):
        return [(str(name), value) for name, value in given.items()]
    return [(str(name), None) for name in listed(given)]


def listed(given: Any) -> list[Any]:
    """One value or several, as a list."""
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def _method(name: str, given: Any) -> Method:
    if not isinstance(given, Mapping | None):
        raise ConfigError(f"expected options by name for strategy {name!r}, got {given!r}")
    content = dict(given or {})
    strategy, gates = content.pop("strategy", name), content.pop("gates", False)
    if not isinstance(gates, bool):
        raise ConfigError(f"expected true or false as gates of {name!r}, got {gates!r}")
    criterion = _optional(_text, content, "criterion")
    content.pop("criterion", None)  # the rest are options of the strategy
    return Method(name, str(strategy), content, gates, criterion)


def _known_methods(rates: Any, methods: list[Method]) -> None:
    """Raise `ConfigError` for a learning rate of a method that there is none of."""
    names = [method.name for method in methods]
    for name in rates if isinstance(rates, Mapping) else ():
        if str(name) not in names:
            raise ConfigError(unknown_name("method in learning_rate", str(name), names))


def _rates(given: Any, method: Method) -> list[float | None]:
    """The learning rates of a method."""
    if isinstance(given, Mapping):
        if method.name not in given:
            raise ConfigError(unknown_name("method in learning_rate", method.name, map(str, given)))
        given = given[method.name]
    return [_positive(rate, "learning_rate") for rate in listed(given)] or [None]


def _layers(given: Any) -> tuple[int, ...] | None:
    return None if given is None else tuple(whole(layer, "exits", least=1) for layer in listed(given))


def _size(given: Any) -> int | None:
    return None if given is None or given in WHOLE else whole(given, "train_sizes", least=1)


def whole(given: Any, what: str, least: int = 0, most: int | None = None) -> int:
    """A whole number, or `ConfigError`."""
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ConfigError(f"expected whole numbers from {least} on in {what}, got {given!r}")
    if most is not None and given > most:
        raise ConfigError(f"expected whole numbers up to {most} in {what}, got {given!r}")
    return given


def _text(given: Any, what: str) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"expected a name as {what}, got {given!r}")
    return given


def _optional(read: Callable[[Any, str], T], content: Mapping[str, Any], key: str) -> T | None:
    """What stands under a key, read; None where nothing does."""
    return None if content.get(key) is None else read(content[key], key)


def _share(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1:
        raise ConfigError(f"expected shares of the training between 0 and 1 in conflict, got {given!r}")
    return float(given)


def _positive(given: Any, what: str) -> float:
    """A number; YAML reads `5e-5` (without a point) as text."""
    try:
        number = float(given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected a number in {what}, got {given!r}") from error
    if not 0 < number < 1:
        raise ConfigError(f"expected {what} between 0 and 1, got {given!r}")
    return number


def _training(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `TrainingOptions`, checked once for all cells."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"expected options by name in training, got {given!r}")
    known = [f.name for f in fields(TrainingOptions) if f.name not in ("learning_rate", "strategy_options")]
    for key in given:
        if key not in known:
            raise ConfigError(unknown_name("option in training", str(key), known))
    TrainingOptions(**given)
    return dict(given)
