"""P-values of "the risk is above alpha" from the losses of a finite sample, valid at every sample size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BETS = np.linspace(0.0, 1.0, 201)[1:-1]  # as shares of the largest bet that cannot ruin


def binomial_p_value(losses: NDArray[np.float64], alpha: float) -> float:
    """P-value of "the mean of these 0/1 losses is above alpha": the exact binomial tail.

    For 0/1 losses it is valid as it stands, and never above the Hoeffding–Bentkus value, which covers all of [0, 1].

    Source: Angelopoulos et al. 2021, section 3 (binary losses); Brown et al. 2001.
    """
    from scipy.special import bdtr

    return float(bdtr(float(losses.sum()), len(losses), alpha))


def betting_p_value(losses: NDArray[np.float64], alpha: float) -> float:
    """P-value of "the mean of these losses in [−1, 1] is above alpha".

    A gambler who stakes a fixed share b on every `alpha − loss` does not gain on average if the mean is alpha or more,
    and the mean wealth W of many such gamblers does not either; so P(W ≥ 1/p) ≤ p (Markov). The wealth feels the
    variance: paired losses are mostly 0, where bounds for the range alone would need tens of thousands of examples.

    Source: Waudby-Smith and Ramdas 2024 (Estimating means of bounded random variables by betting), section 4; the
        mixture over fixed bets is Cover's universal portfolio, and does not depend on the order of the examples.
    """
    from scipy.special import logsumexp

    bets = BETS / (1 - alpha)  # a loss of 1 leaves the boldest gambler nothing
    values, counts = np.unique(losses, return_counts=True)
    wealth = np.log1p(bets[:, None] * (alpha - values)) @ counts
    return float(min(1.0, np.exp(np.log(len(bets)) - logsumexp(wealth))))
