"""The shadow audit: some texts also run through all layers, to see whether early answers still agree."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Full, Queue
from threading import Event, Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share, whole
from offramp._core.errors import CalibrationError, ConfigError
from offramp._core.seeding import generator
from offramp._core.trace import Trace
from offramp.calibration.target import Guarantee, TuningTarget
from offramp.engine.batching import Encoding
from offramp.engine.policy import Policy
from offramp.serving.detector import EVERY, EDetector, bernoulli_bets, upper_bound

KEPT = 5000  # audited texts that a policy can be tuned on
POLL_SECONDS = 0.2

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditState:
    """What an audit has seen since its last alarm.

    Attributes:
        audited: texts.
        disagreements: of them, those whose answer differs from the full model's.
        low: lower end of the interval of the share of disagreements, 0 where nothing was audited.
        high: its upper end.
        promise: the largest share that the tuned policy allows.
        evidence: against the promise, as a share of what raises the alarm.
        alarms: since the start.
        dropped: sampled texts that were not audited, because the queue was full; since the start.
    """

    audited: int
    disagreements: int
    low: float
    high: float
    promise: float
    evidence: float
    alarms: int
    dropped: int

    @property
    def disagreement(self) -> float:
        """Share of audited texts whose answer differs from the full model's; NaN where there are none."""
        return self.disagreements / self.audited if self.audited else float("nan")


class Audit:
    """Audited answers: an interval of their disagreement with the full model, an alarm, and the texts' traces.

    The interval is valid at all times together: with probability `confidence` it never misses the true share, however
    often it is read, as long as that share does not change. The alarm does not assume that: it finds a change after any
    number of good answers. While each text disagrees with at most the promised probability, the mean number of audited
    texts between two alarms is at least `every`. An alarm restarts the interval.

    Args:
        policy: the tuned policy; its promise is that of `promised_disagreement`.
        every: least mean number of audited texts between two false alarms.
        confidence: of the interval.
        kept: number of audited texts whose logits are kept for `retuned`; no text and no token is.

    Raises:
        ConfigError: an option out of range, or a policy without a promise.

    Source: the audit is that of Apparate (Dai et al. 2024), section 3; the interval `confidence_sequence`; the alarm
        `EDetector`.
    """

    def __init__(
        self, policy: Policy, *, every: int = EVERY, confidence: float = 0.95, kept: int = KEPT
    ) -> None:
        self.policy, self.promise = policy, promised_disagreement(policy)
        self.confidence = check_share("confidence", confidence, zero=False, full=False)
        self._detector = EDetector(bernoulli_bets(self.promise), every)
        self._traces: deque[Trace] = deque(maxlen=whole("kept", kept, least=1))
        self._lock = Lock()
        self._audited = self._disagreements = self._alarms = 0

    def observe(self, trace: Trace, answers: NDArray[Any]) -> int:
        """Note audited texts.

        Args:
            trace: what every exit says about them.
            answers: what the service answered `(texts,)`, class indices.

        Returns:
            The number of alarms that they raise.
        """
        differ = trace.predictions()[:, -1] != answers
        alarms = 0
        with self._lock:
            for row, other in enumerate(differ.tolist()):
                self._traces.append(trace.take(slice(row, row + 1)))
                self._audited += 1
                self._disagreements += other
                if self._detector.observe(int(other)):
                    self._audited = self._disagreements = 0
                    alarms += 1
            self._alarms += alarms
        return alarms

    def state(self, dropped: int = 0) -> AuditState:
        """The state now."""
        with self._lock:
            counts = self._audited, self._disagreements
            evidence, alarms = self._detector.evidence, self._alarms
        low, high = confidence_sequence(counts[1], counts[0], self.confidence)
        return AuditState(*counts, low, high, self.promise, evidence, alarms, dropped)

    def trace(self) -> Trace:
        """The audited texts that are kept, with the full model's answers as labels.

        Raises:
            CalibrationError: nothing has been audited.
        """
        with self._lock:
            traces = list(self._traces)
        if not traces:
            raise CalibrationError("no text has been audited yet: wait, or audit a larger share")
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(t, name) for t in traces]) for name in _arrays(traces[0])
        }
        joined = replace(traces[0], **columns)
        return replace(joined, labels=joined.predictions()[:, -1])

    def retuned(self) -> Policy:
        """The policy with a rule that is fitted to the audited texts, with the same promise of disagreement.

        The temperatures stay as they are. A guarantee is given anew, for texts like the audited ones.

        Raises:
            CalibrationError: no threshold keeps the promise, or too few texts have been audited.
        """
        target, goal = self.policy.target, TuningTarget(max_accuracy_drop=self.promise)
        if _is_guaranteed(self.policy):
            kind: Guarantee = "conformal" if target["guarantee"] == "conformal" else "disagreement"
            goal = TuningTarget(guarantee=kind, alpha=target["alpha"], delta=target.get("delta"))
        trace = self.trace().scaled(self.policy.temperatures)
        tuned = goal.fit(trace, self.policy.criterion, metric="accuracy", temperatures=False)
        return replace(tuned, temperatures=self.policy.temperatures)


def _is_guaranteed(policy: Policy) -> bool:
    """Whether a guarantee bounds the disagreement of a policy."""
    return bool(policy.target.get("guarantee")) and policy.target.get("risk") == "disagreement"


def _arrays(trace: Trace) -> list[str]:
    """Names of a trace's arrays."""
    return [name for name, value in vars(trace).items() if isinstance(value, np.ndarray)]


def promised_disagreement(policy: Policy) -> float:
    """The largest share of answers that may differ from the full model's, as the tuning of a policy promised it.

    It is `alpha` where a guarantee bounds the disagreement. Any other target promises it indirectly: what disagreed on
    the calibration data, with its 99 % upper bound (Clopper and Pearson 1934).

    Raises:
        ConfigError: the policy does not say it, since it is older, was not tuned, or answers with numbers.
    """
    target = policy.target
    if _is_guaranteed(policy):
        return float(target["alpha"])
    if target.get("disagreement") is None or not target.get("examples"):
        raise ConfigError(
            "the policy does not say how often it disagreed with the full model when it was tuned: tune it again with "
            "'offramp tune' (a regression cannot be audited)"
        )
    wrong = round(target["disagreement"] * target["examples"])
    return upper_bound(wrong, target["examples"], 0.01)


def confidence_sequence(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """An interval of a probability that is valid at all times together.

    Betting on every value of the probability under a Beta(½, ½) prior makes, for each value p, a wealth that reaches
    1 / (1 − confidence) with probability 1 − confidence at most if p is true. The interval holds every p below that.

    Args:
        successes: number of successes so far.
        trials: number of trials so far; (0, 1) for none.
        confidence: probability that the interval never misses.

    Source: Robbins 1970 (mixtures of likelihood ratios); Howard et al. 2021 (Time-uniform confidence sequences).
    """
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    failures = trials - successes
    mixture = betaln(0.5 + successes, 0.5 + failures) - betaln(0.5, 0.5) + math.log(1 - confidence)

    def excess(p: float) -> float:
        return float(mixture - xlogy(successes, p) - xlog1py(failures, -p))

    middle = successes / trials if trials else 0.5
    low = brentq(excess, 1e-300, middle) if successes else 0.0
    high = brentq(excess, middle, 1 - 1e-16) if failures else 1.0
    return float(low), float(high)


class ShadowAudit:
    """Audits a random share of the answers of one model in a thread of its own, off the way of requests.

    Which text is audited depends neither on its exit nor on its answer. If the queue is full, a sampled text is dropped
    and counted, so a busy service is audited less, but as fairly.

    Args:
        audit: what the audited texts are noted in.
        share: of the answers that are audited.
        full: what every exit says about some token ids, such as `trace_segments` on the model's segments.
        waiting: the largest number of texts in the queue.
        seed: chooses the texts.

    Raises:
        ConfigError: an option out of range.
    """

    def __init__(
        self,
        audit: Audit,
        share: float,
        full: Callable[[Sequence[Encoding]], Trace],
        *,
        waiting: int = 256,
        seed: int = 0,
    ) -> None:
        self.audit, self.share = audit, check_share("the audited share", share, zero=False)
        self._full = full
        self.on_audit: Callable[[int], object] = lambda alarms: None  # called after each batch
        self._queue: Queue[tuple[Encoding, Any]] = Queue(whole("waiting", waiting, least=1))
        self._random, self._lock = generator(seed, "audit"), Lock()
        self._dropped = 0
        self._stopped = Event()
        self._thread = Thread(target=self._work, name="offramp-audit", daemon=True)

    def offer(self, encodings: Sequence[Encoding], answers: NDArray[Any]) -> None:
        """Sample from answered texts, their token ids and answers `(texts,)`; returns at once."""
        with self._lock:
            for row in np.flatnonzero(self._random.random(len(encodings)) < self.share).tolist():
                try:
                    self._queue.put_nowait((encodings[row], answers[row]))
                except Full:
                    self._dropped += 1

    def state(self) -> AuditState:
        """The state of the audit now."""
        return self.audit.state(self._dropped)

    def run_waiting(self, most: int = 32) -> int:
        """Audit texts that wait, a batch at most; returns their number."""
        batch: list[tuple[Encoding, Any]] = []
        while len(batch) < most and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        if batch:
            encodings, answers = zip(*batch, strict=True)
            self.on_audit(self.audit.observe(self._full(encodings), np.array(answers)))
        return len(batch)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after its batch."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._stopped.wait(POLL_SECONDS if self._queue.empty() else 0):
            try:
                self.run_waiting()
            except Exception:  # an audit must not end, nor the service with it
                _LOG.exception("texts could not be audited")
