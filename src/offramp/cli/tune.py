"""`offramp tune`: choose the threshold at which to leave, on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from offramp._core.errors import ConfigError
from offramp.cli.common import DataOptions, emit, limit_threads, load_for, note, refuse_filled, show
from offramp.cli.policies import fit_policy, policy_path

if TYPE_CHECKING:
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel


@dataclass(frozen=True)
class TuningTarget:
    """What a threshold has to reach; one of the four.

    Args:
        max_accuracy_drop: how much worse than the full model the main metric may get, 0.01 for one point; the
            default target is 0.01.
        max_cost: instead, the mean FLOPs as a share of the full model's.
        max_p95_ms: instead, the 95th percentile of the milliseconds that a text takes by itself, by measured times of
            the segments.
        timed: exported folder whose segments are measured for `max_p95_ms`; by default the model runs in torch.
        guarantee: instead, a bound that holds on new data: accuracy_drop or disagreement with the full model, at most
            `alpha` with probability 1 - `delta` (Learn-then-Test); or conformal, an answer other than the full
            model's with probability at most `alpha`.
        alpha: the largest risk of the guarantee.
        delta: the largest probability that the risk is larger all the same.
    """

    max_accuracy_drop: float | None = None
    max_cost: float | None = None
    max_p95_ms: float | None = None
    timed: Path | None = None
    guarantee: Literal["accuracy_drop", "disagreement", "conformal"] | None = None
    alpha: float | None = None
    delta: float | None = None

    def check(self) -> None:
        """Refuse options that contradict each other before anything is loaded."""
        if self.max_p95_ms is None and self.timed is not None:
            raise ConfigError("--timed says where --max-p95-ms is measured: give both, or neither")
        if self.max_p95_ms is not None and any(
            value is not None for value in (self.max_accuracy_drop, self.max_cost, self.guarantee)
        ):
            raise ConfigError("--max-p95-ms takes the place of the other targets: give one kind of target")
        others = (
            [self.alpha, self.delta] if self.guarantee is None else [self.max_accuracy_drop, self.max_cost]
        )
        if any(value is not None for value in others):
            raise ConfigError(
                "--alpha and --delta belong to --guarantee, which takes the place of --max-accuracy-drop and "
                "--max-cost: give one kind of target"
            )
        if self.guarantee == "conformal" and self.delta is not None:
            raise ConfigError(
                "--guarantee conformal has no --delta: its probability is over examples and data together"
            )

    def fit(self, model: SegmentedModel, data: Any, criterion: str, temperatures: bool) -> Policy:
        """The policy that reaches the target on the calibration split."""
        if self.max_p95_ms is not None:
            return self.fit_latency(model, data, criterion, temperatures)
        if self.guarantee is None:
            drop = (
                0.01 if self.max_accuracy_drop is None and self.max_cost is None else self.max_accuracy_drop
            )
            return fit_policy(
                model,
                data,
                criterion,
                max_accuracy_drop=drop,
                max_cost=self.max_cost,
                temperatures=temperatures,
            )
        from offramp.calibration import tune_conformal, tune_with_guarantee
        from offramp.inference.tracing import trace

        run = trace(model, data["calibration"], progress=True)
        alpha = 0.02 if self.alpha is None else self.alpha
        if self.guarantee == "conformal":
            return tune_conformal(run, criterion, alpha=alpha, temperatures=temperatures)
        delta = 0.1 if self.delta is None else self.delta
        return tune_with_guarantee(
            run, criterion, risk=self.guarantee, alpha=alpha, delta=delta, temperatures=temperatures
        )

    def fit_latency(self, model: SegmentedModel, data: Any, criterion: str, temperatures: bool) -> Policy:
        """The policy whose 95th percentile keeps within the bound, by times measured now."""
        from offramp.calibration.latency import tune_latency
        from offramp.engine.batching import token_counts
        from offramp.engine.onnx import OnnxSegments
        from offramp.engine.segment_times import measure_segments
        from offramp.inference.segments import TorchSegments
        from offramp.inference.tracing import trace
        from offramp.model.encoding import TextEncoder

        assert self.max_p95_ms is not None
        run = trace(model, data["calibration"], progress=True)
        encodings = TextEncoder.of(model).dataset(data["calibration"])[0]
        segments: Any = TorchSegments(model) if self.timed is None else OnnxSegments(self.timed, threads=1)
        if tuple(segments.exit_layers) != tuple(model.exit_layers):
            raise ConfigError(
                f"{self.timed} has the exits {list(segments.exit_layers)}, the model {list(model.exit_layers)}: export "
                "this model"
            )
        times = measure_segments(segments, encodings[0], threads=1, longest=model.max_length)
        return tune_latency(
            run,
            criterion,
            times=times,
            lengths=token_counts(encodings),
            max_p95_ms=self.max_p95_ms,
            metric=data.metrics[0],
            temperatures=temperatures and data.kind == "classification",
        )


def tune(
    model: Path,
    data: str,
    *,
    criterion: str = "confidence",
    target: Annotated[TuningTarget, Parameter(name="*")] = TuningTarget(),
    temperatures: bool = True,
    kept: Path | None = None,
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Choose a threshold for a loss of accuracy, a budget, a latency or a guarantee, on the calibration split.

    For example `offramp tune runs/sweet movies --max-accuracy-drop 0.01`, or with a statement about new data,
    `offramp tune runs/sweet movies --guarantee accuracy_drop --alpha 0.02 --delta 0.1`. The result is a policy: a small
    JSON file that `evaluate`, `attack` and the Python `Engine` take.

    Args:
        model: folder that `offramp train` wrote.
        data: what the model was trained on; its calibration split is used.
        criterion: the exit rule: confidence, entropy, normalized_entropy, margin, patience, patience_confidence,
            vote, learned or energy.
        target: what the threshold has to reach.
        temperatures: fit a temperature for each exit first; `--temperatures=false` leaves the logits alone.
        kept: new folder for a copy of the model with the exits that pay alone: those whose visits cost more time than
            their departures save are dropped first. The policy is then for the copy, and lies beside it.
        output: the policy file; by default `policy-CRITERION.json` beside the model.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    target.check()
    if kept is not None:
        if target.guarantee is not None:
            raise ConfigError(
                "--kept chooses exits on the calibration split, which voids a --guarantee tested on it: give one of "
                "them"
            )
        refuse_filled(kept)
    found = reading.load(data)
    loaded = load_for(model, found, "calibration")
    if kept is not None:
        loaded, model = drop_exits(loaded, found, criterion, target.max_accuracy_drop, kept), kept
    policy = target.fit(loaded, found, criterion, temperatures)
    path = output or policy_path(model, criterion)
    path.parent.mkdir(parents=True, exist_ok=True)
    policy.save(path)
    show(
        "policy, on the calibration split",
        [{"criterion": criterion, "threshold": policy.criterion.threshold, **policy.target}],
    )
    note(f"policy: {path}")
    emit(
        json,
        {
            "policy": str(path),
            "criterion": criterion,
            "threshold": policy.criterion.threshold,
            **policy.target,
        },
    )


def drop_exits(
    model: SegmentedModel, data: Any, criterion: str, max_accuracy_drop: float | None, folder: Path
) -> SegmentedModel:
    """The model with the exits that pay by measured time, saved to a folder."""
    from offramp.calibration.exit_choice import choose_exits
    from offramp.inference.exit_overhead import exit_overhead
    from offramp.inference.tracing import trace
    from offramp.model.encoding import TextEncoder
    from offramp.model.prune_exits import prune_exits

    visit = exit_overhead(model, TextEncoder.of(model).dataset(data["calibration"])[0])
    choice = choose_exits(
        trace(model, data["calibration"], progress=True),
        criterion,
        visit=visit,
        max_accuracy_drop=0.01 if max_accuracy_drop is None else max_accuracy_drop,
        metric=data.metrics[0],
    )
    steps = [
        {"exit dropped": int(step["dropped"]) or "none", "cost after": step["cost"]} for step in choice.steps
    ]
    show(f"exits, each visit at {visit:.1%} of the full model's time", steps)
    smaller = prune_exits(model, choice.layers)
    smaller.save_pretrained(folder)
    note(f"kept the exits {list(choice.layers)} of {list(model.exit_layers)}: {folder}")
    return smaller
