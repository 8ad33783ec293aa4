"""The hooks of a watched service: work budget, metrics, drift alarms and shadow audits together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.errors import OfframpError
from offramp._core.files import policy_file
from offramp._core.trace import Trace
from offramp.engine.batching import Encoding
from offramp.engine.policy import Decisions, Policy
from offramp.engine.segments import trace_segments
from offramp.inference.engine import Engine
from offramp.serving.audit import Audit, ShadowAudit
from offramp.serving.budget import WorkBudget
from offramp.serving.drift import DriftMonitor
from offramp.serving.hooks import Refusal, Submission
from offramp.serving.metrics import ServiceMetrics

_LOG = logging.getLogger(__name__)


class Watch:
    """`Hooks` that budget the work, count it, and raise alarms. Each element may be left out.

    Drift and audits see only rows without a cap: with a cap a row may leave before the policy lets it.

    Args:
        metrics: where everything is counted.
        budget: the work budget.
        drift: monitors by model.
        audits: by model; their threads are started here and stopped by `close`.
        retuned: folder for `policy-MODEL.json`, the policy that an alarm of an audit leads to; None writes none.
    """

    def __init__(
        self,
        metrics: ServiceMetrics,
        *,
        budget: WorkBudget | None = None,
        drift: Mapping[str, DriftMonitor] | None = None,
        audits: Mapping[str, ShadowAudit] | None = None,
        retuned: Path | None = None,
    ) -> None:
        self.metrics, self.budget, self.retuned = metrics, budget, retuned
        self.drift, self.audits = dict(drift or {}), dict(audits or {})
        for name, audit in self.audits.items():
            audit.on_audit = self._audited(name, audit)
            audit.start()

    def admit(self, client: str, flops_full: NDArray[np.float64]) -> NDArray[np.float64] | Refusal:
        """See `Hooks.admit`."""
        if self.budget is None:
            return np.full(len(flops_full), np.inf)
        return self.budget.admit(client, flops_full)

    def answered(
        self, client: str, model: str, decisions: Decisions, seconds: float, submission: Submission
    ) -> None:
        """See `Hooks.answered`."""
        self._settle(submission, float(decisions.flops.sum()))
        self.metrics.answered(decisions, seconds, submission)
        free = np.flatnonzero(np.isinf(submission.caps))
        if (monitor := self.drift.get(model)) is not None:
            alarms = monitor.observe(client, decisions.exit[free])
            self.metrics.drift(model, client, monitor.evidence(client), alarms)
            if alarms:
                _LOG.warning(
                    "drift: texts of client %s no longer leave model %s where they did", client, model
                )
        if (audit := self.audits.get(model)) is not None:
            audit.offer([submission.encodings[row] for row in free.tolist()], decisions.prediction[free])

    def dropped(self, submission: Submission) -> None:
        """See `Hooks.dropped`. The request costs its worst case: it may have run, and who hangs up must still pay."""
        self._settle(submission, submission.reserved)
        self.metrics.dropped(submission.model, submission.client)

    def refused(self, client: str, model: str, status: int) -> None:
        """See `Hooks.refused`."""
        self.metrics.refused(model, client, status)

    def ran_batch(self, model: str, rows: int, waiting: int, seconds: float) -> None:
        """See `Hooks.ran_batch`."""
        self.metrics.ran_batch(model, rows, waiting, seconds)

    def exposition(self) -> bytes:
        """See `Hooks.exposition`."""
        if self.budget is not None:
            self.metrics.budget_levels(self.budget.levels())
        return self.metrics.exposition()

    def close(self) -> None:
        """Stop the audits."""
        for audit in self.audits.values():
            audit.close()

    def _settle(self, submission: Submission, spent: float) -> None:
        if self.budget is not None:
            self.budget.settle(submission.client, submission.reserved, spent)

    def _audited(self, model: str, audit: ShadowAudit) -> Callable[[int], None]:
        def note(alarms: int) -> None:
            self.metrics.audit(model, audit.state(), alarms)
            if alarms:
                _LOG.warning("audit: model %s no longer agrees with its full depth as it was tuned to", model)
                if self.retuned is not None:
                    write_retuned(audit.audit, self.retuned / policy_file(model))

        return note


def write_retuned(audit: Audit, path: Path) -> None:
    """Write the policy that keeps the promise on the audited texts, or log why there is none."""
    try:
        audit.retuned().save(path)
    except OfframpError as error:
        _LOG.warning("audit: the policy could not be tuned again: %s", error)
    else:
        _LOG.warning("audit: %s keeps the promise on the audited texts", path)


def least_share(engines: Iterable[Engine]) -> float:
    """The largest cost of a first exit, as a share of the full model's FLOPs."""
    shares = [0.0]
    for engine in engines:
        flops, full = engine.segments.flops(np.array([2, engine.encoder.max_length]))
        shares.append(float((flops[:, 0] / full).max()))
    return min(max(shares), 1.0)


def shadow_audit(engine: Engine, audit: Audit, share: float, **options: Any) -> ShadowAudit:
    """The audit of an engine's model.

    Args:
        engine: the engine, whose segments also run the audited texts.
        audit: of the engine's policy.
        share: of the answers that are audited.
        options: of `ShadowAudit`.

    Raises:
        ConfigError: an option out of range.
    """

    def full(encodings: Sequence[Encoding]) -> Trace:
        return trace_segments(engine.segments, encodings, engine.encoder.pad_values)

    return ShadowAudit(audit, share, full, **options)


def drift_monitor(policy: Policy, **options: Any) -> DriftMonitor:
    """The monitor of a policy's model; `ConfigError` for a policy that does not say where its texts left."""
    return DriftMonitor(policy.target.get("exit_counts", ()), **options)
