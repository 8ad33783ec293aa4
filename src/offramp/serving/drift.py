"""Whether the texts of a client still leave where those of the calibration did."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share, sequence, whole
from offramp._core.errors import ConfigError
from offramp.serving.detector import EVERY, EDetector, bernoulli_bets, upper_bound


class DriftMonitor:
    """A sequential test, for each client, of the exits that its texts take. It may be called from any thread.

    The hypothesis is that a text leaves at exit k or later, and before exit k, with at most the probability that the
    calibration data allow, for every k and whatever the texts before it did. The bounds cover sampling noise: with
    probability `confidence` over the calibration data, all of them hold. Then a client whose texts are like the
    calibration data raises a false alarm at most once in `every` texts on average. The reference never moves, so a slow
    drift adds up as well. A shift within the sampling noise of the calibration data raises no alarm.

    Args:
        calibration: number of calibration examples that left at each exit `(exits,)`.
        every: least mean number of texts between two false alarms of a client.
        confidence: probability of the bounds.
        clients: number of clients that are watched; beyond it, the least recently seen one is forgotten.

    Raises:
        ConfigError: an option out of range, or counts that are not two or more whole numbers with a positive sum.

    Source: the alarm is `EDetector`; the bounds are those of Clopper and Pearson 1934, which share `1 − confidence`
        (Bonferroni).
    """

    def __init__(
        self, calibration: Any, *, every: int = EVERY, confidence: float = 0.99, clients: int = 1000
    ) -> None:
        counts = [
            whole("a count", count) for count in sequence("calibration", calibration, "counts of exits")
        ]
        if len(counts) < 2 or not sum(counts):
            raise ConfigError(
                f"calibration must be counts of two exits or more, got {counts}: tune the policy again"
            )
        self.every, self.clients = whole("every", every, least=1), whole("clients", clients, least=1)
        level = 1 - check_share("confidence", confidence, zero=False, full=False)
        self._e_values = depth_bets(np.array(counts), level)
        self._detectors: OrderedDict[str, EDetector] = OrderedDict()  # the least recently seen first
        self._lock = Lock()

    def observe(self, client: str, exits: NDArray[np.intp]) -> int:
        """Note the exits of some texts `(texts,)`, 0-based; returns the number of alarms that they raise."""
        with self._lock:
            detector = self._detectors.pop(client, None) or EDetector(self._e_values, self.every)
            self._detectors[client] = detector
            if len(self._detectors) > self.clients:
                self._detectors.popitem(last=False)
            return sum(detector.observe(exit) for exit in exits.tolist())

    def evidence(self, client: str) -> float:
        """The evidence against a client's texts, as a share of what raises the alarm; 0 for a new client."""
        with self._lock:
            detector = self._detectors.get(client)
            return 0.0 if detector is None else detector.evidence


def depth_bets(counts: NDArray[np.int64], level: float) -> NDArray[np.float64]:
    """E-values of leaving at each exit `(alternatives, exits)`, against the shares of the calibration data.

    Args:
        counts: calibration examples by exit `(exits,)`.
        level: probability, over the calibration data, with which a bound may fail.
    """
    exits, bets = np.arange(len(counts)), []
    for k in exits[1:]:
        for event in (exits >= k, exits < k):
            bound = upper_bound(int(counts[event].sum()), int(counts.sum()), level / (2 * len(exits) - 2))
            if bound < 1:
                bets.append(bernoulli_bets(bound)[:, event.astype(int)])
    return np.concatenate(bets)
