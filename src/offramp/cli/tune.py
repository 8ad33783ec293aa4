"""`offramp tune`: choose the threshold at which to leave, on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from offramp._core.errors import ConfigError, CriterionError
from offramp._core.files import check_writable, policy_file

# The command line resolves inherited annotations in this module.
from offramp.calibration.target import Guarantee, TuningTarget  # noqa: F401
from offramp.calibration.thresholds import Thresholds  # noqa: F401
from offramp.calibration.tuning import measure_exit_choice, tune_model
from offramp.cli.common import (
    CriterionName,
    DataOptions,
    JsonFlag,
    Threads,
    emit,
    limit_threads,
    load_for,
    note,
    refuse_filled,
    show,
)
from offramp.cli.paths import PathOption
from offramp.engine.policy import Policy


@Parameter(name="*", group="Target: at most one of the four kinds")
@dataclass(frozen=True)
class TargetOptions(TuningTarget):
    """The target of the threshold.

    Args:
        max_accuracy_drop: how far the main metric may fall below that of the full model, 0.01 for one point. This is
            the default target, with 0.01.
        max_cost: mean FLOPs as a share of the full model's.
        max_latency_ms: 95th percentile of the milliseconds that a single text takes, by measured times of the
            segments.
        timed_on: exported folder whose segments are measured for `--max-p95-ms`; by default the model runs in torch.
        guarantee: a bound that holds on new data. With accuracy_drop or disagreement, the risk is at most `--alpha`
            with probability 1 - `--delta` (Learn-then-Test). With conformal, an answer differs from the full model's
            with probability at most `--alpha`. With accumulated_gap, at every exit, at most a share `--alpha` of the
            texts that have left by then lose the right answer of the full model, with probability 1 - `--delta`.
        alpha: the largest risk of the guarantee; by default 0.02.
        delta: the probability with which the risk may exceed `--alpha`; by default 0.1.
        thresholds: shared, one threshold for all exits, or own, one for each exit but the last. Own thresholds spend
            less for the same loss. By default shared, and own for accumulated_gap.
        recall: answer with the most confident exit that has run, instead of the one at which a text leaves.
    """

    max_latency_ms: Annotated[float | None, Parameter(name="--max-p95-ms")] = None
    timed_on: Annotated[PathOption | None, Parameter(name="--timed")] = None


def tune(
    model: PathOption,
    data: str,
    *,
    criterion: CriterionName = "confidence",
    target: TargetOptions = TargetOptions(),
    temperatures: bool = True,
    kept: PathOption | None = None,
    output: PathOption | None = None,
    reading: DataOptions = DataOptions(),
    threads: Threads = None,
    json: JsonFlag = False,
) -> None:
    """Choose a threshold for a loss of accuracy, a budget, a latency or a guarantee, on the calibration split.

    For example `offramp tune runs/sweet movies --max-accuracy-drop 0.01`, or with a guarantee for new data,
    `offramp tune runs/sweet movies --guarantee accuracy_drop --alpha 0.02 --delta 0.1`. The result is a policy: a small
    JSON file that `evaluate`, `attack` and the Python `Engine` take.

    Args:
        model: folder that `offramp train` wrote.
        data: the data that the model was trained on; its calibration split is used.
        temperatures: fit a temperature for each exit first; `--temperatures=false` uses the logits unscaled.
        kept: new folder for a copy of the model without the exits that cost more time than they save. The policy is
            made for the copy and written beside it.
        output: the policy file; by default `policy-CRITERION.json` beside the model.
    """
    limit_threads(threads)
    from offramp.model.card import update_card
    from offramp.model.prune_exits import prune_exits

    path = output or (model if kept is None else kept) / policy_file(criterion)
    refuse_other_file(path)
    if kept is not None:
        target.check_exit_choice()
        refuse_filled(kept)
        check_writable(kept)
    texts = reading.load(data)
    loaded = load_for(model, texts, "calibration")
    wanted = TuningTarget(**vars(target))  # of the base class, since its defaults are recognised by equality
    if kept is not None:
        choice = measure_exit_choice(loaded, texts, criterion, wanted)
        steps = [
            {"exit dropped": int(step["dropped"]) or "none", "cost after": step["cost"]}
            for step in choice.steps
        ]
        show(f"exits, each visit at {choice.visit:.1%} of the full model's time", steps)
        smaller = prune_exits(loaded, choice.layers)
        smaller.save_pretrained(kept)
        note(f"kept the exits {list(choice.layers)} of {list(loaded.exit_layers)}: {kept}")
        loaded = smaller
    policy = tune_model(loaded, texts, criterion, wanted, temperatures=temperatures)
    result = {"criterion": criterion, "threshold": policy.criterion.threshold, **policy.target}
    show("policy, on the calibration split", [result])
    policy.save(path)
    update_card(model if kept is None else kept)
    note(f"policy: {path}")
    emit(json, {"policy": str(path), **result})


def refuse_other_file(path: Path) -> None:
    """Raise an `OfframpError` for a policy file that could not be written, or would replace another file."""
    check_writable(path, file=True)
    if path.exists():
        try:
            Policy.load(path)
        except CriterionError as error:
            raise ConfigError(f"{path} holds something other than a policy: give another --output") from error
