"""`offramp tune`: choose the threshold at which to leave, on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from offramp._core.errors import ConfigError
from offramp.cli.common import DataOptions, emit, limit_threads, load_for, note, show

if TYPE_CHECKING:
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel


@dataclass(frozen=True)
class Target:
    """What a threshold has to reach; one of the three.

    Args:
        max_accuracy_drop: how much worse than the full model the main metric may get, 0.01 for one point; the
            default target is 0.01.
        max_cost: instead, the mean FLOPs as a share of the full model's.
        guarantee: instead, a bound that holds on new data: accuracy_drop or disagreement with the full model, at most
            `alpha` with probability 1 - `delta` (Learn-then-Test); or conformal, an answer other than the full
            model's with probability at most `alpha`.
        alpha: the largest risk of the guarantee.
        delta: the largest probability that the risk is larger all the same.
    """

    max_accuracy_drop: float | None = None
    max_cost: float | None = None
    guarantee: Literal["accuracy_drop", "disagreement", "conformal"] | None = None
    alpha: float | None = None
    delta: float | None = None

    def check(self) -> None:
        """Refuse options that contradict each other before anything is loaded."""
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


def tune(
    model: Path,
    data: str,
    *,
    criterion: str = "confidence",
    target: Annotated[Target, Parameter(name="*")] = Target(),
    temperatures: bool = True,
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Choose a threshold for a stated loss of accuracy, a stated budget or a guarantee, on the calibration split.

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
        output: the policy file; by default `policy-CRITERION.json` beside the model.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    target.check()
    found = reading.load(data)
    policy = target.fit(load_for(model, found), found, criterion, temperatures)
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


def policy_path(model: Path, criterion: str) -> Path:
    """Where the policy of a model for a criterion lies unless told otherwise."""
    return model / f"policy-{criterion}.json"


def fit_policy(
    model: SegmentedModel,
    data: Any,
    criterion: str,
    *,
    max_accuracy_drop: float | None = None,
    max_cost: float | None = None,
    temperatures: bool = True,
) -> Policy:
    """The policy for one target, fitted on the calibration split."""
    from offramp.calibration import tune as fit
    from offramp.inference.tracing import trace

    return fit(
        trace(model, data["calibration"], progress=True),
        criterion,
        max_accuracy_drop=max_accuracy_drop,
        max_cost=max_cost,
        metric=data.metrics[0],
        temperatures=temperatures and data.kind == "classification",
    )


def policy_for(
    folder: Path, model: SegmentedModel, data: Any, criterion: str, max_accuracy_drop: float
) -> Policy:
    """The policy beside a model, tuned first where there is none."""
    from offramp.engine.policy import Policy

    path = policy_path(folder, criterion)
    if not path.exists():
        fit_policy(model, data, criterion, max_accuracy_drop=max_accuracy_drop).save(path)
        note(
            f"{folder.name}: no policy for {criterion!r} yet: tuned for a drop of at most {max_accuracy_drop:g}"
        )
    return Policy.load(path)
