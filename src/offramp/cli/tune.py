"""`offramp tune`: choose the threshold at which to leave, on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from offramp.cli.common import DataOptions, emit, limit_threads, load_for, note, refuse_filled, show
from offramp.cli.policies import policy_path

if TYPE_CHECKING:
    from offramp.calibration import TuningTarget
    from offramp.data.text_data import TextData
    from offramp.model.base import SegmentedModel


@dataclass(frozen=True)
class TargetOptions:
    """What a threshold has to reach: one of the four.

    Args:
        max_accuracy_drop: how far the main metric may fall below that of the full model, 0.01 for one point; this is
            the default target, with 0.01.
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

    def target(self) -> TuningTarget:
        """The target, or a `ConfigError` where options contradict each other."""
        from offramp.calibration import TuningTarget

        return TuningTarget(
            self.max_accuracy_drop,
            self.max_cost,
            self.max_p95_ms,
            self.timed,
            self.guarantee,
            self.alpha,
            self.delta,
        )


def tune(
    model: Path,
    data: str,
    *,
    criterion: str = "confidence",
    target: Annotated[TargetOptions, Parameter(name="*")] = TargetOptions(),
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
        data: the data that the model was trained on; its calibration split is used.
        criterion: the exit rule: confidence, entropy, normalized_entropy, margin, patience, patience_confidence,
            vote, learned or energy.
        target: what the threshold has to reach.
        temperatures: fit a temperature for each exit first; `--temperatures=false` leaves the logits alone.
        kept: new folder for a copy of the model without the exits whose visits cost more time than their early exits
            save. The policy is then for the copy, and is saved beside it.
        output: the policy file; by default `policy-CRITERION.json` beside the model.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp.calibration.tuning import tune_model

    wanted = target.target()
    if kept is not None:
        wanted.check_exit_choice()
        refuse_filled(kept)
    texts = reading.load(data)
    loaded = load_for(model, texts, "calibration")
    if kept is not None:
        loaded, model = drop_exits(loaded, texts, criterion, wanted, kept), kept
    policy = tune_model(loaded, texts, criterion, wanted, temperatures=temperatures)
    path = output or policy_path(model, criterion)
    path.parent.mkdir(parents=True, exist_ok=True)
    policy.save(path)
    result = {"criterion": criterion, "threshold": policy.criterion.threshold, **policy.target}
    show("policy, on the calibration split", [result])
    note(f"policy: {path}")
    emit(json, {"policy": str(path), **result})


def drop_exits(
    model: SegmentedModel, data: TextData, criterion: str, target: TuningTarget, folder: Path
) -> SegmentedModel:
    """The model with the exits that pay by measured time, saved to a folder."""
    from offramp.calibration.tuning import measure_exit_choice
    from offramp.model.prune_exits import prune_exits

    choice = measure_exit_choice(model, data, criterion, target)
    steps = [
        {"exit dropped": int(step["dropped"]) or "none", "cost after": step["cost"]} for step in choice.steps
    ]
    show(f"exits, each visit at {choice.visit:.1%} of the full model's time", steps)
    smaller = prune_exits(model, choice.layers)
    smaller.save_pretrained(folder)
    note(f"kept the exits {list(choice.layers)} of {list(model.exit_layers)}: {folder}")
    return smaller
