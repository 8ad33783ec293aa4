"""`offramp.tune`: a policy for a trace, or for a model and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from offramp._core import progress as display
from offramp._core.errors import ConfigError
from offramp._core.paths import UserPath
from offramp._core.trace import Trace
from offramp.calibration.latency import ExitChoice, choose_exits, tune_latency
from offramp.calibration.target import DROP, Guarantee, TuningTarget
from offramp.calibration.thresholds import Thresholds
from offramp.criteria import Criterion
from offramp.engine.batching import token_counts
from offramp.engine.onnx import OnnxSegments
from offramp.engine.policy import Policy
from offramp.engine.segment_times import measure_segments
from offramp.engine.segments import Segments

if TYPE_CHECKING:
    from datasets import Dataset

    from offramp.model.base import SegmentedModel


def tune(
    model: Trace | SegmentedModel,
    data: Mapping[str, Dataset] | str | Criterion | None = None,
    criterion: str | Criterion = "confidence",
    *,
    max_accuracy_drop: float | None = None,
    max_cost: float | None = None,
    max_latency_ms: float | None = None,
    timed_on: UserPath | None = None,
    guarantee: Guarantee | None = None,
    alpha: float | None = None,
    delta: float | None = None,
    thresholds: Thresholds | None = None,
    recall: bool = False,
    metric: str | None = None,
    temperatures: bool = True,
    drop_exits: bool = False,
    progress: bool = True,
) -> Policy:
    """Choose the threshold of an exit rule for exactly one target.

    `tune(trace, "confidence", max_accuracy_drop=0.01)` works on a trace of a calibration split.
    `tune(model, data, "confidence", max_accuracy_drop=0.01)` traces the calibration split first.

    Args:
        model: a labelled trace of a calibration split, or a model.
        data: with a model, the data that it was trained on. With a trace, the criterion.
        criterion: name of the rule, or a rule object, which keeps its options but gets a new threshold.
        max_accuracy_drop: largest loss against the full model, in units of the metric (0.01 is one point); for a model
            0.01 if no target is given.
        max_cost: largest mean cost, as a share of the full model's FLOPs.
        max_latency_ms: largest 95th percentile of the milliseconds of a single text; needs a model.
        timed_on: exported folder whose segments are timed for `max_latency_ms`; by default the torch model is timed.
        guarantee: a bound that holds on new data: `accuracy_drop` or `disagreement` with the full model is at most
            `alpha` with probability 1 − `delta` (Learn-then-Test); `conformal`: an answer differs from the full model's
            with probability at most `alpha`; or `accumulated_gap`: with probability 1 − `delta`, at every exit, at most
            a share `alpha` of the texts that have left by then lose the right answer of the full model.
        alpha: largest risk of the guarantee; 0.02 by default.
        delta: probability with which the risk may exceed alpha; 0.1 by default.
        thresholds: `shared`, one for all exits, or `own`, one for each exit but the last; by default own ones for
            `accumulated_gap`, shared ones else.
        recall: answer with the most confident exit that has run, instead of the one at which a text leaves.
        metric: key of `METRICS`; by default the main metric of the data, or accuracy.
        temperatures: whether to fit a temperature per exit first; not for regression.
        drop_exits: first drop the exits whose time costs more than their early exits save; needs a model. The policy is
            then for `prune_exits(model, policy.exit_layers)`.
        progress: show a progress bar.

    Returns:
        The policy; its `target` holds the requested and the reached values.

    Raises:
        CalibrationError: no threshold meets the target; for a trace without labels, with fewer than 20 examples, or of
            a rule without a threshold.
        ConfigError: targets or options that contradict each other or are no shares, or an unknown metric.
        CriterionError: an unknown rule, or one that does not fit the model.
        DataError: the model was trained on the calibration split, or answers with other classes.

    Source: temperatures, then a threshold, as in Schwartz et al. 2020 (The Right Tool for the Job) and SWEET.
    """
    target = TuningTarget(
        max_accuracy_drop, max_cost, max_latency_ms, timed_on, guarantee, alpha, delta, thresholds, recall
    )
    if isinstance(model, Trace):
        if max_latency_ms is not None or drop_exits:
            raise ConfigError("max_latency_ms and drop_exits need a model to measure: call tune(model, data)")
        rule = criterion if data is None else cast("str | Criterion", data)
        return target.fit(model, rule, metric=metric or "accuracy", temperatures=temperatures)
    from offramp.data import require_splits
    from offramp.model import require_model

    require_model(model)
    require_splits(data, "calibration")
    assert isinstance(data, Mapping)
    if drop_exits:
        target.check_exit_choice()
        from offramp.model.prune_exits import prune_exits

        chosen = measure_exit_choice(model, data, criterion, target, progress=progress)
        model = prune_exits(model, chosen.layers)
    return tune_model(
        model, data, criterion, target, metric=metric, temperatures=temperatures, progress=progress
    )


def tune_model(
    model: SegmentedModel,
    data: Mapping[str, Dataset],
    criterion: str | Criterion,
    target: TuningTarget,
    *,
    metric: str | None = None,
    temperatures: bool = True,
    progress: bool = True,
) -> Policy:
    """Trace the calibration split and choose a threshold for a target; see `tune` for arguments."""
    from offramp.inference.segments import TorchSegments
    from offramp.inference.tracing import trace
    from offramp.model.encoding import TextEncoder
    from offramp.model.trained_on import refuse_trained_on

    if (target.max_accuracy_drop, target.max_cost, target.max_latency_ms, target.guarantee) == (None,) * 4:
        target = replace(target, max_accuracy_drop=DROP)
    rows = data["calibration"]
    refuse_trained_on(model.trained_on, rows, "the model and the calibration split")
    run = trace(model, rows, progress=progress)
    metric = metric or main_metric(model, data)
    if target.max_latency_ms is None:
        with display.progress("choose the threshold", show=progress):
            return target.fit(run, criterion, metric=metric, temperatures=temperatures)
    encodings = TextEncoder.of(model).dataset(rows)[0]
    segments: Segments[Any] = TorchSegments(model)
    if target.timed_on is not None:
        segments = OnnxSegments(target.timed_on, threads=1)
    if tuple(segments.exit_layers) != tuple(model.exit_layers):
        raise ConfigError(
            f"{target.timed_on} has the exits {list(segments.exit_layers)}, the model {list(model.exit_layers)}: "
            "export this model"
        )
    return tune_latency(
        run,
        criterion,
        times=measure_segments(segments, encodings[0], threads=1, longest=model.max_length),
        lengths=token_counts(encodings),
        max_p95_ms=target.max_latency_ms,
        metric=metric,
        temperatures=temperatures,
        thresholds=target.form,
        recall=target.recall,
    )


def main_metric(model: SegmentedModel, data: Mapping[str, Dataset]) -> str:
    """The metric for tuning a model: the main metric of the data, if the data name one."""
    from offramp.data import TextData

    if isinstance(data, TextData):
        return data.metrics[0]
    return "accuracy" if model.kind == "classification" else "pearson"


def measure_exit_choice(
    model: SegmentedModel,
    data: Mapping[str, Dataset],
    criterion: str | Criterion,
    target: TuningTarget,
    *,
    progress: bool = True,
) -> ExitChoice:
    """The exits of a model that save more time than they cost on this machine; see `choose_exits`."""
    from offramp.inference.tracing import exit_overhead, trace
    from offramp.model.encoding import TextEncoder

    rows = data["calibration"]
    return choose_exits(
        trace(model, rows, progress=progress),
        criterion,
        visit=exit_overhead(model, TextEncoder.of(model).dataset(rows)[0]),
        max_accuracy_drop=DROP if target.max_accuracy_drop is None else target.max_accuracy_drop,
        metric=main_metric(model, data),
        thresholds=target.form,
    )
