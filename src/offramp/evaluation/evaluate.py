"""Evaluating models on a data set: every exit, every threshold, their policies, and how the models differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from offramp._core import progress as display
from offramp._core.arguments import check_share, name_list, seed_number, whole
from offramp._core.errors import ConfigError
from offramp._core.trace import Trace
from offramp.calibration import tune
from offramp.engine.policy import Policy
from offramp.evaluation.arrow_tables import from_rows, in_front, stack
from offramp.evaluation.bootstrap import Interval, interval_table
from offramp.evaluation.compare import Comparison, compare
from offramp.evaluation.curves import Curve, speed_accuracy, stack_curves
from offramp.evaluation.operating_points import exit_histogram, per_exit, policy_scores, reliability_table
from offramp.evaluation.sanity_checks.checks import trace_doubts
from offramp.evaluation.timing import time_policy

if TYPE_CHECKING:
    import pyarrow as pa

    from offramp.data.text_data import TextData
    from offramp.model.base import SegmentedModel

BAND_RESAMPLES = 500  # for the bands of curves


@dataclass(frozen=True)
class RuleEvaluation:
    """One model under one exit rule.

    Attributes:
        policy: the rule with its threshold and temperatures.
        scores: of `policy_scores`.
        curve: score against cost over all thresholds, with bands.
        histogram: of `exit_histogram`.
        timing: of `time_speedups`, at several thresholds; None where time was not measured.
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
        per_exit: the score of every exit, for every metric of the data, and `auroc`; see `per_exit`.
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
    models: dict[str, ModelEvaluation] = field(repr=False)
    comparisons: dict[str, Comparison] = field(repr=False)

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
        """What every policy gives: `model`, `criterion`, `threshold`, `name`, `estimate`, `low`, `high`.

        The threshold is NaN where each exit has its own.
        """
        tables = []
        for name, model in self.models.items():
            for criterion, rule in model.rules.items():
                chosen = rule.policy.criterion.threshold
                threshold = math.nan if isinstance(chosen, tuple) else float(chosen)
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

    All intervals are 95 % percentile-bootstrap intervals.

    Args:
        models: a model with its tokenizer, or several by name.
        data: of `load_data`. Its calibration split serves to tune policies, and for nothing else.
        policies: policies by the model's name (`model` for a single model).
        criteria: the exit rules. A model without a policy for a rule is tuned first.
        split: the split to report on; never the calibration split.
        max_accuracy_drop: target of the tuning.
        timed: number of examples timed; 0 skips the timing.
        batch_size, seed: of the timing, and of the bootstrap.
        progress: show progress bars.

    Raises:
        DataError: a model has other classes than the data, or was trained on the rows of the split.
        CalibrationError: a policy was calibrated on the split.
        ConfigError: the calibration split was asked for, or a drop that is no share.
        CriterionError: a criterion that is unknown or does not fit.
    """
    from offramp.data import require_text_data
    from offramp.inference.tracing import trace

    check_share("max_accuracy_drop", max_accuracy_drop, unit=" points")
    require_text_data(data)
    seed, timed, batch_size = seed_number(seed), whole("timed", timed), whole("batch_size", batch_size, 1)
    criteria = name_list("criteria", criteria, "the exit rules")
    named: Mapping[str, SegmentedModel] = models if isinstance(models, Mapping) else {"model": models}
    evaluated = {}
    for name, model in named.items():
        _check_split(model, data, name, split)
        rules = {policy.criterion.name: policy for policy in (policies or {}).get(name, ())}
        missing = [criterion for criterion in criteria if criterion not in rules]
        if missing:
            calibration = trace(model, data["calibration"], progress=progress)
            for criterion in missing:
                rules[criterion] = tune(
                    calibration,
                    criterion,
                    max_accuracy_drop=max_accuracy_drop,
                    metric=data.metrics[0],
                    temperatures=data.kind == "classification",
                )
        chosen = {criterion: rules[criterion] for criterion in criteria}
        run = trace(model, data[split], progress=progress)
        doubts = dict.fromkeys(doubt for policy in chosen.values() for doubt in trace_doubts(run, policy))
        timings = {
            criterion: time_policy(
                model, policy, data[split], timed, batch_size=batch_size, progress=progress
            )
            for criterion, policy in (chosen.items() if timed else ())
        }
        with display.progress("resample for intervals", show=progress):
            evaluated[name] = _evaluate_trace(run, chosen, data.metrics, timings, tuple(doubts), seed)
    comparisons = {
        criterion: compare_models(evaluated, criterion, data.metrics[0], seed=seed)
        for criterion in criteria
        if len(evaluated) > 1
    }
    return Evaluation(data.metrics[0], evaluated, comparisons)


def _check_split(model: SegmentedModel, data: TextData, name: str, split: str) -> None:
    """Raise where the scores of a model on a split would be too good, or of other classes."""
    from offramp.data import check_fit
    from offramp.model.trained_on import refuse_trained_on

    if split == "calibration":
        raise ConfigError(
            "thresholds are fitted on the calibration split, so nothing is reported on it: try validation"
        )
    check_fit(data, model.labels, model.kind, pair=model.pair, model=name)
    for checked in sorted({"calibration", split} - {"train"}):  # who names the training split wants it so
        refuse_trained_on(model.trained_on, data[checked], f"{name} and the {checked} split of {data.name}")


def _evaluate_trace(
    run: Trace,
    policies: Mapping[str, Policy],
    metrics: Sequence[str],
    timings: Mapping[str, pa.Table],
    doubts: tuple[str, ...],
    seed: int,
) -> ModelEvaluation:
    """All numbers of one model; `policies` and `timings` by criterion."""
    exits = per_exit(run, metrics=metrics, seed=seed)
    rules = {}
    for criterion, policy in policies.items():
        timing = timings.get(criterion)
        curve = speed_accuracy(
            run,
            policy.criterion,
            metric=metrics[0],
            temperatures=policy.temperatures,
            resamples=BAND_RESAMPLES,
            seed=seed,
        )
        if timing is not None:
            curve = curve.with_times(
                {
                    row["threshold"]: row["time_speedup"]
                    for row in timing.to_pylist()
                    if not math.isnan(row["threshold"])  # own thresholds are no point of the curve
                }
            )
        numbers = policy_scores(run, policy, metric=metrics[0], seed=seed)
        rules[criterion] = RuleEvaluation(policy, numbers, curve, exit_histogram(run, policy), timing)
    diagrams = None
    if run.kind == "classification":
        diagrams = reliability_table(run, next(iter(policies.values())).temperatures)
    return ModelEvaluation(run, exits, diagrams, rules, doubts)


def compare_models(
    models: Mapping[str, ModelEvaluation], criterion: str, metric: str, *, seed: int = 0
) -> Comparison:
    """Compare models, evaluated on the same split, with the first of them, under the exit rule `criterion`."""
    policies = {name: model.rules[criterion].policy for name, model in models.items()}
    traces = {name: model.trace.scaled(policies[name].temperatures) for name, model in models.items()}
    rules = {name: policy.criterion for name, policy in policies.items()}
    return compare(traces, rules, metric=metric, seed=seed)
