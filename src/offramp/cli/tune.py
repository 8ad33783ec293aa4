"""`offramp tune`: choose the threshold at which to leave, on calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from offramp.cli.common import DataOptions, emit, limit_threads, note, show

if TYPE_CHECKING:
    from offramp.engine.policy import Policy
    from offramp.model.base import SegmentedModel


def tune(
    model: Path,
    data: str,
    *,
    criterion: str = "confidence",
    max_accuracy_drop: float | None = None,
    max_cost: float | None = None,
    temperatures: bool = True,
    output: Path | None = None,
    reading: Annotated[DataOptions, Parameter(name="*")] = DataOptions(),
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Choose a threshold for a stated loss of accuracy or a stated budget, on the calibration split.

    For example `offramp tune runs/sweet movies --max-accuracy-drop 0.01`. The result is a policy: a small JSON file
    that `evaluate`, `attack` and the Python `Engine` take.

    Args:
        model: folder that `offramp train` wrote.
        data: what the model was trained on; its calibration split is used.
        criterion: the exit rule: confidence, entropy, normalized_entropy, margin, patience, patience_confidence,
            vote, learned or energy.
        max_accuracy_drop: how much worse than the full model the main metric may get, 0.01 for one point; the
            default target is 0.01.
        max_cost: instead, the mean FLOPs as a share of the full model's.
        temperatures: fit a temperature for each exit first; `--temperatures=false` leaves the logits alone.
        output: the policy file; by default `policy-CRITERION.json` beside the model.
        reading: how to read the data.
        threads: CPU threads.
        json: print one JSON object on stdout.
    """
    limit_threads(threads)
    from offramp.model import load_model

    if max_accuracy_drop is None and max_cost is None:
        max_accuracy_drop = 0.01
    policy = fit_policy(
        load_model(model),
        reading.load(data),
        criterion,
        max_accuracy_drop=max_accuracy_drop,
        max_cost=max_cost,
        temperatures=temperatures,
    )
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
        note(
            f"{folder.name}: no policy for {criterion!r} yet: tuned for a drop of at most {max_accuracy_drop:g}"
        )
        fit_policy(model, data, criterion, max_accuracy_drop=max_accuracy_drop).save(path)
    return Policy.load(path)
