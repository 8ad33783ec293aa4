"""A trial of a sweep: one model, which is trained, calibrated, traced and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offramp._core.errors import ConfigError
from offramp._core.files import atomic_write
from offramp._core.records import read_record, write_record
from offramp._core.text import slug
from offramp._core.to_json import to_json
from offramp._core.trace import Trace
from offramp.calibration.thresholds import prepare
from offramp.criteria import make_criterion
from offramp.evaluation.arrow_tables import table
from offramp.evaluation.curves import RANGES, area, speed_accuracy
from offramp.evaluation.operating_points import cost_statistic, static_exits
from offramp.metrics import score
from offramp.studies.grid import Load, Trial, short
from offramp.studies.training.held_out import held_out_costs
from offramp.training.options import TrainingOptions
from offramp.training.strategies import make_strategy

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel

RUN = "run"  # the folder of the training, below the trial's
TRACE = "trace.npz"


@dataclass(frozen=True)
class Method:
    """A strategy with its options, under the name that reports show.

    Attributes:
        name: of the strategy, or any other name, such as `joint-linear`.
        strategy: a key of `STRATEGIES`.
        criterion: exit rule of its curve; None for the sweep's.
        training: options of training that replace the sweep's.
    """

    name: str
    strategy: str
    options: dict[str, Any] = field(default_factory=dict)
    gates: bool = False
    criterion: str | None = None
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingTrial(Trial):
    """One model of a sweep: everything that its weights depend on.

    Attributes:
        backbone: packaged name, folder or hub name.
        exits: exit layers, 0 for one before the first; None for the backbone's default.
        task: a source for `load_data`.
        method: how it is trained.
        train_size: number of training examples, which `seed` chooses; None for all.
        seed: for examples, heads and order.
        learning_rate: peak; None for the default by width.
        training: the other options of `TrainingOptions`.
        criterion: exit rule of the curves, unless the method has its own.
        pooling, max_length: of the model; None for the backbone's default.
        conflict: shares of the training at which gradient conflict is measured.
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
        size = "all" if self.train_size is None else self.train_size
        rate = "default" if self.learning_rate is None else f"{self.learning_rate:g}"
        names = (short(self.backbone), short(self.task), self.method.name)
        return Path(*map(slug, names), f"n{size}-lr{rate}-seed{self.seed}")

    @property
    def rule(self) -> str:
        return self.method.criterion or self.criterion

    @property
    def options(self) -> TrainingOptions:
        chosen = {"learning_rate": self.learning_rate, "strategy_options": self.method.options}
        return TrainingOptions(**{**self.training, **self.method.training, **chosen})

    def to_dict(self) -> dict[str, Any]:
        """The trial as its record keeps it: no path of this machine is part of it."""
        content = {**asdict(self), "backbone": short(self.backbone), "task": short(self.task)}
        if not self.conflict:  # older records have neither key
            del content["conflict"]
        if not self.method.training:
            del content["method"]["training"]
        return {key: to_json(value) for key, value in content.items()}

    @property
    def row(self) -> str:
        size = "all" if self.train_size is None else f"{self.train_size:,}"
        return f"{short(self.backbone)}, {short(self.task)}, {size}"

    @property
    def column(self) -> str:
        return self.method.name

    def check(self) -> None:
        """Raise `ConfigError` or `CriterionError` for an unknown strategy, option or exit rule, or no layer."""
        if self.exits == (0,):
            raise ConfigError(f"{self.backbone} has an exit at layer 0 alone: add at least one layer")
        make_strategy(self.method.strategy, **self.method.options)
        make_criterion(self.rule)

    def run(self, output: Path, load: Load) -> None:
        """Train, calibrate, trace and record the model; a killed training resumes from its last checkpoint."""
        from offramp.inference.tracing import trace
        from offramp.training.run import train, untrained_model

        started = datetime.now(UTC)
        data = load(self.task)
        if self.train_size is not None:
            data = data.subsample(self.train_size, self.seed)
        model = untrained_model(
            self.method.strategy,
            self.backbone,
            self.exits,
            data,
            pooling=self.pooling,
            gates=self.method.gates,
            max_length=self.max_length,
            seed=self.seed,
        )
        rule = make_criterion(self.rule)
        rule.check(len(model.exit_layers), model.kind, model.gates)
        model = train(
            model,
            data,
            strategy=self.method.strategy,
            seed=self.seed,
            output_dir=output / self.folder / RUN,
            **vars(self.options),
            callbacks=self._callbacks(model, data["train"], output),
            progress=False,
        )
        trained = read_record(output / self.folder / RUN / "train.json")
        calibration, run = trace(model, data["calibration"]), trace(model, data["validation"])
        fitted, metric = prepare(calibration, rule, temperatures=True), data.metrics[0]
        held_out = held_out_costs(calibration, run, rule, metric)
        self.record(output, run, fitted, metric, trained, started, held_out)

    def record(
        self,
        output: Path,
        run: Trace,
        fitted: Policy,
        metric: str,
        trained: Mapping[str, Any],
        started: datetime | None = None,
        held_out: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write the trace first and the record last: a trial with a record is complete.

        Args:
            run: trace over validation; it is kept in half precision, and every number is computed from that.
            fitted: exit rule and temperatures, fitted on calibration data; the curve sweeps the rule's threshold.
            trained: record of the training, whose `config` and `metrics` are kept.
            held_out: rows of `held_out_costs`, for a model with layer 0.
        """
        folder, compact = output / self.folder, with_precision(run, np.float16)
        with atomic_write(folder / TRACE) as draft:
            compact.save(draft)
        wide = with_precision(compact, np.float32)
        labels, predictions = wide.require_labels(), wide.predictions()
        scores = [score(metric, labels, predictions[:, k]) for k in range(wide.exits)]
        curve = speed_accuracy(wide, fitted.criterion, metric=metric, temperatures=fitted.temperatures)
        costs = cost_statistic(wide, static_exits(wide), [""] * wide.exits).exact()
        exits = table({"exit_layer": wide.exit_layers, "cost": costs, metric: scores})
        metrics = {
            **trained["metrics"],
            "metric": metric,
            "exit_layers": wide.exit_layers,
            "scores": scores,
            "mean_score": float(np.mean(scores)),
            "areas": {name: area(curve, limits) for name, limits in RANGES.items()},
            "temperatures": fitted.temperatures,
            "rule_options": {k: v for k, v in asdict(fitted.criterion).items() if k != "threshold"},
            "trace": TRACE,
            "name": self.method.name,
        }
        own = {"cell": self.to_dict(), "criterion": self.rule, "validation": len(run)}
        write_record(
            folder,
            command="sweep",
            config={**own, "training": trained["config"]},
            metrics=metrics,
            seed=self.seed,
            tables={"exits": to_json(exits.to_pylist())}
            | ({"held_out": to_json(held_out)} if held_out else {}),
            started=started,
        )

    def tidy(self, output: Path) -> None:
        shutil.rmtree(output / self.folder / RUN, ignore_errors=True)

    def _callbacks(self, model: SegmentedModel, rows: Any, output: Path) -> list[TrainerCallback]:
        """Measures gradient conflict, if the trial asks for it, and keeps it beside the record."""
        from offramp.training.gradient_conflict.measure import ConflictCallback
        from offramp.training.stages import training_steps

        if not self.conflict:
            return []
        total = training_steps(self.method.strategy, self.options, len(rows))
        steps = sorted({round(share * total) for share in self.conflict})
        return [ConflictCallback(model, rows, steps, output / self.folder, seed=self.seed)]


def with_precision(trace: Trace, dtype: type[np.floating[Any]]) -> Trace:
    """The trace with logits, gates and residuals of another type."""
    named = {name: getattr(trace, name) for name in ("logits", "gates", "residuals")}
    return replace(trace, **{name: v.astype(dtype) for name, v in named.items() if v is not None})
