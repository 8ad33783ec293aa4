"""Evaluating models on a data set: every exit, every threshold, their policies, and how the models differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from offramp._core.errors import ConfigError, DataError
from offramp._core.trace import Trace
from offramp.calibration import tune
from offramp.criteria import scores, threshold_grid
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import from_rows, in_front, stack
from offramp.evaluation.bootstrap import Interval, interval_table
from offramp.evaluation.compare import Comparison, compare
from offramp.evaluation.curves import Curve, speed_accuracy, stack_curves
from offramp.evaluation.per_exit import exit_histogram, per_exit, policy_scores
from offramp.evaluation.reliability import reliability_table
from offramp.evaluation.sanity_checks.checks import trace_doubts
from offramp.evaluation.timing import time_speedups

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from offramp.data.text_data import TextData
    from offramp.model.base import SegmentedModel

TIMED_THRESHOLDS = 5
TIMED_ROUNDS = 3
BAND_RESAMPLES = 500  # for the bands of curves


@dataclass(frozen=True)
class RuleEvaluation:
    """One model under one exit rule.

    Attributes:
        policy: the rule with its threshold and temperatures.
        scores: what the policy gives, by name; see `policy_scores`.
        curve: score against cost over all thresholds, with bands.
        histogram: examples that leave at each exit under the policy.
        timing: measured speed-ups at several thresholds; None where time was not measured.
    """

    policy: Policy
    scores: dict[str, Interval]
    curve: Curve
    histogram: pa.Table
    timing: pa.Table | None


@dataclass(frozen=True)
class ModelEvaluation:
    """One model on one data set.

    Attributes:
        trace: of the model, logits unscaled.
        per_exit: the score of every exit, for every metric of the data.
        reliability: reliability diagrams, with the temperatures of the first policy; None for regression.
        rules: by criterion.
        doubts: what a reader of these numbers should know.
    """

    trace: Trace
    per_exit: pa.Table
    reliability: pa.Table | None
    rules: dict[str, RuleEvaluation]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Models on one data set. Its tables are Arrow tables: `.to_pandas()` makes data frames of them.

    Attributes:
        metric: what `score` is; the main metric of the data.
        models: by name.
        comparisons: by criterion, the models compared over the same examples; empty for one model.
    """

    metric: str
    models: dict[str, ModelEvaluation]
    comparisons: dict[str, Comparison]

    @property
    def per_exit(self) -> pa.Table:
        """The score of every exit of every model; `model` in front of the columns of `per_exit`."""
        return stack([in_front(model.per_exit, {"model": name}) for name, model in self.models.items()])

    @property
    def curves(self) -> pa.Table:
        """Speed-accuracy curves of all models and criteria; see `stack_curves`."""
        curves = {name: [rule.curve for rule in model.rules.values()] for name, model in self.models.items()}
        return stack_curves(curves)

    @property
    def policies(self) -> pa.Table:
        """What every policy gives: `model`, `criterion`, `threshold`, `name`, `estimate`, `low`, `high`."""
        tables = []
        for name, model in self.models.items():
            for criterion, rule in model.rules.items():
                threshold = float(rule.policy.criterion.threshold)
                constants = {"model": name, "criterion": criterion, "threshold": threshold}
                tables.append(in_front(interval_table(rule.scores.values()), constants))
        return stack(tables)

    @property
    def scores(self) -> pa.Table:
        """Scores of all models with their differences to the first; `criterion` in front of `Comparison.scores`."""
        if not self.comparisons:
            raise ConfigError(
                "expected several models to compare, got one: pass a dict of models to evaluate"
            )
        comparisons = self.comparisons.items()
        return stack([in_front(compared.scores, {"criterion": name}) for name, compared in comparisons])

    @property
    def doubts(self) -> pa.Table:
        """What a reader should know: rows `model`, `doubt`."""
        rows = [(name, doubt) for name, model in self.models.items() for doubt in model.doubts]
        return from_rows(("model", "doubt"), rows)


def evaluate(
    models: SegmentedModel | Mapping[str, SegmentedModel],
    data: TextData,
    *,
    policies: Mapping[str, Sequence[Policy]] | None = None,
    criteria: Sequence[str] = ("confidence",),
    split: str = "validation",
    max_accuracy_drop: float = 0.01,
    timed: int = 0,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Evaluate models on a data set and, where there are several, compare them with the first.

    Args:
        models: a model with its tokenizer, or several by name.
        data: of `load_data`. Its calibration split serves to tune policies, and for nothing else.
        policies: policies by the model's name (`model` for a single model).
        criteria: the exit rules. A model without a policy for a rule is tuned first.
        split: the split to report on; never the calibration split.
        max_accuracy_drop: target of the tuning.
        timed: examples on which time is measured; 0 measures none.
        batch_size: of the timing.
        seed: of the bootstrap.
        progress: show progress bars.

    Returns:
        The `Evaluation`; all intervals are 95 % percentile-bootstrap intervals.

    Raises:
        DataError: a model has other classes than the data, or was trained on the rows of the split.
        CalibrationError: a policy was calibrated on the split.
        ConfigError: the calibration split was asked for.
        CriterionError: a criterion that is unknown or does not fit.
    """
    named: Mapping[str, SegmentedModel] = models if isinstance(models, Mapping) else {"model": models}
    evaluated = {
        name: evaluate_model(
            model,
            data,
            name=name,
            policies=(policies or {}).get(name, ()),
            criteria=criteria,
            split=split,
            max_accuracy_drop=max_accuracy_drop,
            timed=timed,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        for name, model in named.items()
    }
    comparisons = {}
    if len(evaluated) > 1:
        for criterion in criteria:
            comparisons[criterion] = compare_models(evaluated, criterion, data.metrics[0], seed=seed)
    return Evaluation(data.metrics[0], evaluated, comparisons)


def evaluate_model(
    model: SegmentedModel,
    data: TextData,
    *,
    name: str = "the model",
    policies: Sequence[Policy] = (),
    criteria: Sequence[str] = ("confidence",),
    split: str = "validation",
    max_accuracy_drop: float = 0.01,
    timed: int = 0,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> ModelEvaluation:
    """Evaluate one model; arguments and errors as in `evaluate`, `name` is the model's name in messages."""
    from offramp.inference.tracing import trace

    _check_split(model, data, name, split)
    chosen = {policy.criterion.name: policy for policy in policies}
    missing = [criterion for criterion in criteria if criterion not in chosen]
    if missing:
        calibration = trace(model, data["calibration"], progress=progress)
        chosen |= {rule: _tuned(calibration, rule, data, max_accuracy_drop) for rule in missing}
    run = trace(model, data[split], progress=progress)
    doubts = dict.fromkeys(doubt for rule in criteria for doubt in trace_doubts(run, chosen[rule]))
    rules = {}
    for rule in criteria:
        timing = None
        if timed:
            timing = time_policy(model, chosen[rule], data[split], timed, batch_size=batch_size)
        rules[rule] = _evaluate_rule(run, chosen[rule], data.metrics[0], timing, seed)
    diagrams = None
    if run.kind == "classification":
        diagrams = reliability_table(run, chosen[criteria[0]].temperatures)
    exits = per_exit(run, metrics=data.metrics, seed=seed)
    return ModelEvaluation(run, exits, diagrams, rules, tuple(doubts))


def _check_split(model: SegmentedModel, data: TextData, name: str, split: str) -> None:
    """Raise where the scores of a model on a split would be too good, or of other classes."""
    from offramp.model.trained_on import refuse_trained_on

    if split == "calibration":
        raise ConfigError(
            "thresholds are fitted on the calibration split, so nothing is reported on it: try validation"
        )
    other_labels = model.kind == "classification" and tuple(model.labels) != tuple(data.labels)
    if model.kind != data.kind or other_labels:
        raise DataError(
            f"{name} has the classes {list(model.labels)}, but {data.name} has {list(data.labels)}: give data with "
            "the labels that the model was trained on"
        )
    for checked in sorted({"calibration", split} - {"train"}):  # who names the training split wants it so
        refuse_trained_on(model.trained_on, data[checked], f"{name} and the {checked} split of {data.name}")


def _tuned(calibration: Trace, criterion: str, data: TextData, max_accuracy_drop: float) -> Policy:
    return tune(
        calibration,
        criterion,
        max_accuracy_drop=max_accuracy_drop,
        metric=data.metrics[0],
        temperatures=data.kind == "classification",
    )


def _evaluate_rule(
    run: Trace, policy: Policy, metric: str, timing: pa.Table | None, seed: int
) -> RuleEvaluation:
    curve = speed_accuracy(
        run,
        policy.criterion,
        metric=metric,
        temperatures=policy.temperatures,
        resamples=BAND_RESAMPLES,
        seed=seed,
    )
    if timing is not None:
        curve = curve.with_times({row["threshold"]: row["time_speedup"] for row in timing.to_pylist()})
    numbers = policy_scores(run, policy, metric=metric, seed=seed)
    return RuleEvaluation(policy, numbers, curve, exit_histogram(run, policy), timing)


def compare_models(
    models: Mapping[str, ModelEvaluation], criterion: str, metric: str, *, seed: int = 0
) -> Comparison:
    """Compare evaluated models with the first of them, under one exit rule.

    Args:
        models: by name, evaluated on the same split.
        criterion: one of the rules that they were evaluated with.
        metric: the main metric of the data.
        seed: of the bootstrap.
    """
    policies = {name: model.rules[criterion].policy for name, model in models.items()}
    traces = {name: model.trace.scaled(policies[name].temperatures) for name, model in models.items()}
    rules = {name: policy.criterion for name, policy in policies.items()}
    return compare(traces, rules, metric=metric, seed=seed)


def time_policy(
    model: SegmentedModel, policy: Policy, rows: Dataset, examples: int, *, batch_size: int = 32
) -> pa.Table:
    """Measured speed-ups against full depth at the policy's threshold and a few others.

    Args:
        model: with its tokenizer.
        policy: criterion, threshold and temperatures.
        rows: texts to run.
        examples: how many of them.
        batch_size: for both.

    Returns:
        The table of `time_speedups`.
    """
    from offramp.inference.segments import TorchSegments
    from offramp.inference.tracing import trace
    from offramp.model import MultiModelForSequenceClassification
    from offramp.model.encoding import TextEncoder

    first = rows.select(range(min(examples, len(rows))))
    table = scores(policy.criterion, trace(model, first).scaled(policy.temperatures))
    grid = threshold_grid(policy.criterion, table)
    spread = np.quantile(grid, np.linspace(0, 1, TIMED_THRESHOLDS), method="nearest")
    full = None
    if isinstance(model, MultiModelForSequenceClassification):
        # At full depth a cascade is its last member: running the others first would gain nothing.
        full = TorchSegments(model.member(len(model.members) - 1))
    return time_speedups(
        TorchSegments(model),
        policy,
        TextEncoder.of(model).dataset(first)[0],
        thresholds=sorted({*spread.tolist(), float(policy.criterion.threshold)}),
        full=full,
        batch_size=batch_size,
        repeats=TIMED_ROUNDS,
    )
