"""How soon the alarms of a service notice that the texts have changed, and how often they are false."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share, whole
from offramp._core.errors import ConfigError, OfframpError
from offramp._core.progress import track
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.engine.policy import Decisions, Policy
from offramp.serving.audit import Audit
from offramp.serving.drift import DriftMonitor


def watch_stream(
    policy: Policy,
    stages: Mapping[str, Trace],
    *,
    texts: int = 5000,
    audit_share: float = 0.05,
    every: int = 100_000,
    runs: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Replay streams whose texts change from stage to stage, through a drift monitor and an audit.

    Args:
        policy: tuned for the texts of the first stage, but not on them.
        stages: traces by name, in order. A stage of a stream draws its texts from one of them, with replacement.
        texts: of each stage.
        audit_share: of the texts that are audited.
        every: of both alarms; see `DriftMonitor` and `Audit`.
        runs: number of streams.
        seed: draws the texts.
        progress: show a progress bar.

    Returns:
        A row for each stage: `stage`, `texts`, their mean `depth`, `cost` and `disagreement` with the full model, the
        `promise` of the policy; for the drift monitor and the audit the share of streams with an alarm in the stage,
        `drift_alarmed` and `audit_alarmed`, and the median number of texts until the first one, `drift_delay` and
        `audit_delay` (NaN where at most half of the streams have one). For the policy tuned again on what the first
        stream audited in this stage alone, `retuned_disagreement` and `retuned_cost`; NaN where it cannot be tuned.

    Raises:
        ConfigError: no stages, a number out of range, or a policy that does not say what to compare with.
        CriterionError: a policy of another model.
    """
    if not stages:
        raise ConfigError("a stream needs stages, got none: give at least one trace")
    whole("texts", texts, least=1), whole("runs", runs, least=1)
    check_share("audit_share", audit_share, zero=False)
    answered = {name: policy.decide(trace) for name, trace in stages.items()}
    delays = np.full((runs, len(stages), 2), np.inf)
    for stream in track(range(runs), "stream texts", show=progress):
        random = generator(seed, "stream", stream)
        monitor = DriftMonitor(policy.target.get("exit_counts", ()), every=every)
        audit = Audit(policy, every=every)
        for stage, (name, trace) in enumerate(stages.items()):
            rows = random.integers(len(trace), size=texts)
            audited = random.random(texts) < audit_share
            delays[stream, stage] = _delays(monitor, audit, answered[name], trace, rows, audited)
    return [
        _row(policy, name, trace, answered[name], delays[:, stage], round(texts * audit_share), seed)
        | {"texts": texts}
        for stage, (name, trace) in enumerate(stages.items())
    ]


def _delays(
    monitor: DriftMonitor,
    audit: Audit,
    answered: Decisions,
    trace: Trace,
    rows: NDArray[np.intp],
    audited: NDArray[np.bool_],
) -> tuple[float, float]:
    """Texts of a stage until the first alarm of the monitor and of the audit; infinite without one."""
    drift = broken = np.inf
    for seen, row in enumerate(rows.tolist(), start=1):
        if monitor.observe("stream", answered.exit[row : row + 1]):
            drift = min(drift, seen)
        if audited[seen - 1]:
            text = slice(row, row + 1)
            if audit.observe(trace.take(text), answered.prediction[text]):
                broken = min(broken, seen)
    return drift, broken


def _row(
    policy: Policy,
    name: str,
    trace: Trace,
    answered: Decisions,
    delays: NDArray[np.float64],
    audited: int,
    seed: int,
) -> dict[str, Any]:
    full = trace.predictions()[:, -1]
    audit = Audit(policy)
    sample = generator(seed, "retuned", name).integers(len(trace), size=audited)
    audit.observe(trace.take(sample), answered.prediction[sample])
    retuned = {"retuned_disagreement": np.nan, "retuned_cost": np.nan}
    try:
        again = audit.retuned().decide(trace)
        retuned = {
            "retuned_disagreement": float((again.prediction != full).mean()),
            "retuned_cost": float(again.flops.sum() / trace.full_flops.sum()),
        }
    except OfframpError:
        pass
    medians = [float(np.median(column)) for column in delays.T]
    return {
        "stage": name,
        "depth": float(answered.layer.mean()),
        "cost": float(answered.flops.sum() / trace.full_flops.sum()),
        "disagreement": float((answered.prediction != full).mean()),
        "promise": audit.promise,
        "drift_alarmed": float(np.isfinite(delays[:, 0]).mean()),
        "drift_delay": medians[0] if np.isfinite(medians[0]) else np.nan,
        "audit_alarmed": float(np.isfinite(delays[:, 1]).mean()),
        "audit_delay": medians[1] if np.isfinite(medians[1]) else np.nan,
        **retuned,
    }
