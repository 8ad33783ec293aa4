"""The options of a watched service: work budget, drift alarms, shadow audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Group, Parameter

from offramp._core.errors import ConfigError
from offramp.cli.common import note
from offramp.cli.paths import PathOption
from offramp.serving.budget import Allowance, Beyond, WorkBudget
from offramp.serving.detector import EVERY

if TYPE_CHECKING:
    from offramp.inference.engine import Engine
    from offramp.serving.watching import Watch

BURST_SECONDS = 10


@Parameter(name="*", group=Group("Budget and watching", sort_key=8))
@dataclass(frozen=True)
class WatchOptions:
    """What clients may use, and what is watched. The metrics are always on.

    Args:
        client_rate: FLOPs a second that each client may use; by default without limit.
        client_burst: FLOPs that a client may use at once; by default those of 10 seconds.
        total_rate: FLOPs a second that all clients together may use; by default without limit.
        total_burst: FLOPs that they may use at once; by default those of 10 seconds.
        beyond_budget: what a request beyond the budget gets: an earlier exit, or 429.
        drift: watch the exits of each client; `--drift=false` does not.
        drift_every: least mean number of texts between two false alarms about a client.
        audit_share: share of the answers that are also run to full depth; 0 audits none.
        audit_every: least mean number of audited texts between two false alarms about a model.
        retuned: folder for the policies that alarms of the audit lead to.
        labelled_clients: largest number of clients with a label of their own in the metrics.
    """

    client_rate: float | None = None
    client_burst: float | None = None
    total_rate: float | None = None
    total_burst: float | None = None
    beyond_budget: Beyond = "earlier-exit"
    drift: bool = True
    drift_every: int = EVERY
    audit_share: float = 0.0
    audit_every: int = EVERY
    retuned: PathOption | None = None
    labelled_clients: int = 100

    def __post_init__(self) -> None:
        self._allowance("client")
        self._allowance("total")
        if self.retuned is not None and not self.audit_share:
            raise ConfigError(
                "retuned (--retuned) needs audited texts: give --audit-share as well, such as 0.01"
            )

    def watch(self, engines: Mapping[str, Engine], clients: Iterable[str] = ()) -> Watch:
        """The hooks of a service.

        Args:
            engines: by model.
            clients: names of the clients that have a key.

        Raises:
            ConfigError: an option out of range, or an audit of a policy that promises nothing.
        """
        from offramp.serving.audit import Audit
        from offramp.serving.metrics import ServiceMetrics
        from offramp.serving.watching import Watch, drift_monitor, least_share, shadow_audit

        budget, monitors, audits = None, {}, {}
        client, total = self._allowance("client"), self._allowance("total")
        if client or total:
            share = least_share(engines.values())
            budget = WorkBudget(client, total, beyond=self.beyond_budget, least_share=share)
        for name, engine in engines.items():
            policy = engine.compacting.policy
            if self.drift and "exit_counts" not in policy.target:
                note(
                    f"{name}: the policy does not say where texts left when it was tuned, so no drift is watched"
                )
            elif self.drift:
                monitors[name] = drift_monitor(policy, every=self.drift_every)
            if self.audit_share:
                audits[name] = shadow_audit(engine, Audit(policy, every=self.audit_every), self.audit_share)
        return Watch(
            ServiceMetrics(self.labelled_clients, clients),
            budget=budget,
            drift=monitors,
            audits=audits,
            retuned=self.retuned,
        )

    def _allowance(self, whose: str) -> Allowance | None:
        rate, burst = getattr(self, f"{whose}_rate"), getattr(self, f"{whose}_burst")
        if rate is None:
            if burst is not None:
                raise ConfigError(
                    f"{whose}_burst (--{whose}-burst) needs {whose}_rate (--{whose}-rate) as well"
                )
            return None
        return Allowance(rate, rate * BURST_SECONDS if burst is None else burst)
