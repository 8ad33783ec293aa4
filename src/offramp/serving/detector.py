"""A sequential alarm with a stated rate of false alarms, for observations with few possible outcomes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share, whole

EVERY = 100_000  # observations between false alarms, by default
ODDS = (1.25, 1.5, 2.0, 4.0, 8.0, 32.0)  # of the alternatives, times those of the bound


class EDetector:
    """An alarm that may be checked after every observation, without a correction for looking often.

    Each alternative bets against the hypothesis. Its e-value is what a stake of 1 becomes, which is at most 1 on
    average while the hypothesis holds. A new bettor starts at every observation with a stake of 1; the evidence is the
    wealth of all bettors so far, as a mean over the alternatives. While the hypothesis holds, it grows by at most 1 an
    observation on average. So the mean number of observations until it reaches `every` is at least `every`. After an
    alarm the evidence starts at 0 again.

    Args:
        e_values: `(alternatives, outcomes)`, not negative.
        every: least mean number of observations between two false alarms.

    Source: Shin, Ramdas and Rinaldo 2023 (E-detectors), the Shiryaev–Roberts e-detector and its mixture.
    """

    def __init__(self, e_values: NDArray[np.float64], every: int) -> None:
        self.every = whole("every", every, least=1)
        self._e_values = e_values.T.copy()  # (outcomes, alternatives)
        self._wealth = np.zeros(len(e_values))

    @property
    def evidence(self) -> float:
        """The evidence as a share of what raises the alarm."""
        return float(self._wealth.mean()) / self.every

    def observe(self, outcome: int) -> bool:
        """Note the index of an outcome; returns whether it raises the alarm."""
        self._wealth = (self._wealth + 1.0) * self._e_values[outcome]
        alarm = self.evidence >= 1
        if alarm:
            self._wealth[:] = 0.0
        return alarm


def bernoulli_bets(bound: float) -> NDArray[np.float64]:
    """E-values of no event and an event `(alternatives, 2)`, against a probability of at most `bound` for the event."""
    check_share("the bound", bound, zero=False, full=False)
    odds = np.array(ODDS) * bound / (1 - bound)
    larger = odds / (1 + odds)
    return np.stack([(1 - larger) / (1 - bound), larger / bound], axis=1)


def upper_bound(events: int, trials: int, level: float) -> float:
    """An upper bound of a probability that fails with probability `level` at most (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    return float(betaincinv(events + 1, trials - events, 1 - level)) if events < trials else 1.0
