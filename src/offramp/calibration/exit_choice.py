"""Which exits to keep: an exit is dropped where its visits cost more than its early exits save."""

from __future__ import annotations

from dataclasses import dataclass, replace

from offramp._core.errors import CalibrationError
from offramp._core.trace import Trace
from offramp.calibration.thresholds import tune_threshold
from offramp.criteria import Criterion
from offramp.engine.policy import Policy


@dataclass(frozen=True)
class ExitChoice:
    """The exits worth keeping.

    Attributes:
        layers: their layers; the last exit is always among them.
        policy: for a model with these exits only; the `cost` in its target includes visits.
        visit: the cost of one visit, as a share of the full model's time.
        steps: one per exit dropped, after a first one for none: `dropped`, the layer of the exit (0 for none), and
            `cost`, the mean cost after it, as a share of the full model's with visits included.
    """

    layers: tuple[int, ...]
    policy: Policy
    visit: float
    steps: tuple[dict[str, float], ...]


def choose_exits(
    trace: Trace,
    criterion: str | Criterion,
    *,
    visit: float,
    max_accuracy_drop: float = 0.01,
    metric: str = "accuracy",
) -> ExitChoice:
    """Drop exits one by one, as long as the cheapest policy for the target gets cheaper.

    An exit has few FLOPs, but takes time: head, decision, and the way to Python and back. A visit is therefore
    charged its measured time.

    Args:
        trace: labelled run over the calibration split, with all exits.
        criterion: the exit rule, tuned anew for every choice of exits.
        visit: cost of every exit that a text reaches, as a share of the full model's time; see `exit_overhead`.
        max_accuracy_drop: target of the tuning.
        metric: key of `METRICS`.

    Returns:
        The choice. With a `visit` of 0 an exit is dropped only where it takes texts from better exits.

    Raises:
        CalibrationError: for a negative `visit`, and as `tune`.
    """
    if not 0 <= visit < 1:
        raise CalibrationError(f"expected visit as a share of the full model's time, 0 to 1, got {visit}")

    def tuned(exits: tuple[int, ...]) -> Policy:
        return tune_threshold(
            with_visits(keep(trace, exits), visit),
            criterion,
            max_accuracy_drop=max_accuracy_drop,
            metric=metric,
        )

    exits = tuple(range(trace.exits))
    best = tuned(exits)
    steps = [{"dropped": 0.0, "cost": float(best.target["cost"])}]
    while len(exits) > 1:
        tries = {k: tuned(tuple(e for e in exits if e != k)) for k in exits[:-1]}
        drop = min(tries, key=lambda k: tries[k].target["cost"])
        if tries[drop].target["cost"] >= best.target["cost"]:
            break
        exits, best = tuple(e for e in exits if e != drop), tries[drop]
        steps.append({"dropped": float(trace.exit_layers[drop]), "cost": float(best.target["cost"])})
    return ExitChoice(best.exit_layers, best, visit, tuple(steps))


def keep(trace: Trace, exits: tuple[int, ...]) -> Trace:
    """The trace of a model with some of its exits alone, given by index; heads left out stay in the FLOPs."""
    chosen = list(exits)
    return replace(
        trace,
        logits=trace.logits[:, chosen],
        exit_layers=tuple(trace.exit_layers[k] for k in chosen),
        flops=trace.flops[:, chosen],
        gates=None if trace.gates is None else trace.gates[:, chosen],
    )


def with_visits(trace: Trace, visit: float) -> Trace:
    """Costs with every exit on the way charged; the full model has its own last one."""
    visits = [visit * (k + 1) for k in range(trace.exits)]
    full = trace.full_flops
    return replace(trace, flops=trace.flops + full[:, None] * visits, full_flops=full * (1 + visit))
