"""The service's numbers for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from offramp._core.arguments import whole
from offramp._core.errors import MissingExtraError
from offramp.engine.policy import Decisions
from offramp.serving.audit import AuditState
from offramp.serving.budget import TOTAL
from offramp.serving.hooks import Submission

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OTHER = "other"  # the label of the clients that have none of their own
SECONDS = tuple(scale * 10.0**power for power in range(-3, 2) for scale in (1, 2, 5))
ROWS = tuple(2.0**power for power in range(9))
MODEL, CLIENT = ("model",), ("model", "client")
# Name → (type, help, labels). Prometheus adds `_total` to counters.
FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "requests": ("Counter", "Requests, by HTTP status.", (*CLIENT, "status")),
    "dropped": ("Counter", "Admitted requests that were not answered.", CLIENT),
    "request_seconds": ("Histogram", "Seconds from arrival to answer.", MODEL),
    "stage_seconds": (
        "Histogram",
        "Seconds of tokenisation, queue and inference of a request.",
        (*MODEL, "stage"),
    ),
    "queue_rows": ("Gauge", "Rows that wait for a batch.", MODEL),
    "batch_rows": ("Histogram", "Rows of a batch.", MODEL),
    "batch_seconds": ("Histogram", "Seconds of inference of a batch.", MODEL),
    "answers": ("Counter", "Answered texts, by exit layer: the depth histogram.", (*CLIENT, "exit_layer")),
    "flops": ("Counter", "FLOPs spent on answers.", CLIENT),
    "full_flops": (
        "Counter",
        "FLOPs of their worst case: the full model, or the deepest exit that a request allows.",
        CLIENT,
    ),
    "budgeted": ("Counter", "Answered texts with a cap that the work budget set.", CLIENT),
    "budget_level_flops": ("Gauge", "FLOPs that a client may use now, without waiting.", ("client",)),
    "drift_evidence": (
        "Gauge",
        "Evidence that a client's exits have shifted; 1 raises the alarm.",
        CLIENT,
    ),
    "drift_alarms": ("Counter", "Alarms about the exits of a client.", CLIENT),
    "audited": ("Gauge", "Audited texts since the last alarm of the audit.", MODEL),
    "audit_dropped": ("Gauge", "Sampled texts that were not audited, since the start.", MODEL),
    "audit_disagreement": (
        "Gauge",
        "Share of audited answers that differ from the full model's, with its interval.",
        (*MODEL, "bound"),
    ),
    "audit_promise": ("Gauge", "Largest disagreement that the tuned policy allows.", MODEL),
    "audit_evidence": ("Gauge", "Evidence that the promise is broken; 1 raises the alarm.", MODEL),
    "audit_alarms": ("Counter", "Alarms about a broken promise.", MODEL),
}
BUCKETS = {"batch_rows": ROWS}


class ServiceMetrics:
    """Prometheus metrics of the service, `offramp_…`. It may be called from any thread.

    Clients share few labels: a client gets a label of its own while fewer than `clients` have one. All later ones
    share the label `other`, since each label costs memory here and in Prometheus.

    Args:
        clients: largest number of clients with a label.
        names: clients with a label from the start, such as those with a key.
        registry: where the metrics are kept; by default one of their own.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(
        self, clients: int = 100, names: Iterable[str] = (), registry: CollectorRegistry | None = None
    ) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise MissingExtraError("prometheus-client", "serve") from error
        self.registry = registry or prometheus_client.CollectorRegistry()
        self._limit, self._lock = whole("clients", clients), Lock()
        self._names = set(names)
        self._families: dict[str, Any] = {}
        self._series: dict[tuple[object, ...], Any] = {}  # the library's own look-up takes five times as long
        for name, (kind, text, labels) in FAMILIES.items():
            extra = {"buckets": BUCKETS.get(name, SECONDS)} if kind == "Histogram" else {}
            family = getattr(prometheus_client, kind)
            self._families[name] = family(f"offramp_{name}", text, labels, registry=self.registry, **extra)
        self._write = prometheus_client.generate_latest

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return self._write(self.registry)

    def client(self, name: str) -> str:
        """The label of a client."""
        with self._lock:
            if name not in self._names and len(self._names) < self._limit:
                self._names.add(name)
            return name if name in self._names else OTHER

    def _of(self, name: str, *labels: object) -> Any:
        """A series; it begins at 0 when it is asked for at first."""
        series = self._series.get((name, *labels))
        if series is None:
            series = self._series[name, *labels] = self._families[name].labels(*labels)
        return series

    def answered(self, decisions: Decisions, seconds: float, submission: Submission) -> None:
        """Count an answered request; arguments as of `Hooks.answered`."""
        model, client = submission.model, self.client(submission.client)
        self._of("requests", model, client, 200).inc()
        self._of("dropped", model, client)  # Prometheus sees no increase in a series that begins at 1
        self._of("request_seconds", model).observe(seconds)
        for stage, spent in submission.seconds.items():
            self._of("stage_seconds", model, stage).observe(spent)
        for layer, count in Counter(decisions.layer.tolist()).items():
            self._of("answers", model, client, layer).inc(count)
        self._of("flops", model, client).inc(float(decisions.flops.sum()))
        self._of("full_flops", model, client).inc(float(submission.flops_full.sum()))
        if capped := int((submission.caps < submission.flops_full).sum()):
            self._of("budgeted", model, client).inc(capped)

    def dropped(self, model: str, client: str) -> None:
        """Count an admitted request without an answer."""
        self._of("dropped", model, self.client(client)).inc()

    def refused(self, model: str, client: str, status: int) -> None:
        """Count a request that was answered with an error."""
        self._of("requests", model, self.client(client), status).inc()

    def ran_batch(self, model: str, rows: int, waiting: int, seconds: float) -> None:
        """Note a batch; arguments as of `Hooks.ran_batch`."""
        self._of("batch_rows", model).observe(rows)
        self._of("batch_seconds", model).observe(seconds)
        self._of("queue_rows", model).set(waiting)

    def budget_levels(self, levels: Mapping[str, float]) -> None:
        """Note the FLOPs that all together, and the clients with a label of their own, may use."""
        for client, level in levels.items():
            if client in self._names or client == TOTAL:
                self._of("budget_level_flops", client).set(level)

    def drift(self, model: str, client: str, evidence: float, alarms: int) -> None:
        """Note the evidence about a client's exits, and new alarms."""
        label = self.client(client)
        self._of("drift_evidence", model, label).set(evidence)
        self._of("drift_alarms", model, label).inc(alarms)

    def audit(self, model: str, state: AuditState, alarms: int) -> None:
        """Note the state of an audit, and new alarms."""
        values = {"low": state.low, "share": state.disagreement, "high": state.high}
        for bound, value in values.items():
            self._of("audit_disagreement", model, bound).set(value)
        self._of("audited", model).set(state.audited)
        self._of("audit_dropped", model).set(state.dropped)
        self._of("audit_promise", model).set(state.promise)
        self._of("audit_evidence", model).set(state.evidence)
        self._of("audit_alarms", model).inc(alarms)
