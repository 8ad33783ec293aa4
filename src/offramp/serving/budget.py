"""A budget of work: FLOPs that each client, and all clients together, may use."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offramp._core.arguments import check_share, choice, number, whole
from offramp.serving.hooks import Refusal

Beyond = Literal["earlier-exit", "refuse"]
TOTAL = "all clients together"


@dataclass(frozen=True)
class Allowance:
    """What a token bucket gives out.

    Args:
        rate: FLOPs that are refilled a second.
        burst: FLOPs that it holds when full, and the largest request that can run at full depth.

    Raises:
        ConfigError: a number that is not positive.
    """

    rate: float
    burst: float

    def __post_init__(self) -> None:
        for name in ("rate", "burst"):
            number(name, getattr(self, name), "a positive number of FLOPs", lambda flops: flops > 0)


class TokenBucket:
    """FLOPs that refill at a constant rate up to a burst; it starts full.

    The level falls below 0 where a request used more than it reserved. That debt is refilled first.
    """

    def __init__(self, allowance: Allowance, now: float) -> None:
        self.allowance = allowance
        self.level = float(allowance.burst)
        self.requests = 0  # admitted and not settled
        self._updated = now

    def refill(self, now: float) -> None:
        """Add what has accrued since the last call."""
        self.add(max(now - self._updated, 0.0) * self.allowance.rate)
        self._updated = now

    def add(self, flops: float) -> None:
        """Add FLOPs; what does not fit is lost."""
        self.level = min(self.level + flops, self.allowance.burst)

    def seconds_until(self, flops: float) -> float:
        """Seconds until the bucket holds some FLOPs, or is full."""
        return max(min(flops, self.allowance.burst) - self.level, 0.0) / self.allowance.rate


class WorkBudget:
    """Token buckets in FLOPs: one for each client, one for all together. It may be called from any thread.

    The worst case is reserved when a request is admitted, and `settle` gives back what was not used. So no client, and
    not all of them together, can use more than `burst + rate × seconds` FLOPs in any stretch of time. What an attacker
    makes a model do counts as what it costs.

    Args:
        client: allowance of each client; None for no limit.
        total: allowance of all clients together; None for no limit.
        beyond: what a request beyond the budget gets: an `earlier-exit`, which is a cap on the FLOPs of its rows, or
            `refuse`.
        least_share: FLOPs of the first exit as a share of the full model's, which no cap can go below. A request that
            not even this fits is refused.
        clients: largest number of clients that are tracked. Only a client whose bucket is full is forgotten, since
            forgetting another one would cancel its debt.
        clock: seconds, for tests.

    Raises:
        ConfigError: an option out of range.

    Source: Turner 1986 (New directions in communications), the leaky bucket as a meter.
    """

    def __init__(
        self,
        client: Allowance | None = None,
        total: Allowance | None = None,
        *,
        beyond: Beyond = "earlier-exit",
        least_share: float = 0.0,
        clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        choice("answer beyond the budget", beyond, get_args(Beyond))
        self.allowance, self.beyond = client, beyond
        self.least_share = check_share("least_share", least_share) if beyond == "earlier-exit" else 1.0
        self.clients = whole("clients", clients, least=1)
        self._clock, self._lock = clock, Lock()
        self._total = None if total is None else TokenBucket(total, clock())
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()  # the least recently used first

    def admit(self, client: str, flops_full: NDArray[np.float64]) -> NDArray[np.float64] | Refusal:
        """Reserve the worst case of a request; see `Hooks.admit`."""
        worst = float(flops_full.sum())
        with self._lock:
            now = self._clock()
            own = self._own(client, now)
            if isinstance(own, Refusal):
                return own
            buckets = {name: bucket for name, bucket in ((client, own), (TOTAL, self._total)) if bucket}
            for bucket in buckets.values():
                bucket.refill(now)
            available = min((bucket.level for bucket in buckets.values()), default=math.inf)
            share = 1.0 if worst <= available else available / worst
            if share < self.least_share or share <= 0:
                return _refusal(buckets, worst * self.least_share)
            reserved = worst if share == 1 else available
            for bucket in buckets.values():
                bucket.level -= reserved
                bucket.requests += 1
        return np.full(len(flops_full), np.inf) if share == 1 else flops_full * share

    def settle(self, client: str, reserved: float, spent: float) -> None:
        """Give back what an admitted request reserved and did not use.

        Args:
            client: as in `admit`.
            reserved: sum over the rows of the smaller of cap and full model, in FLOPs.
            spent: FLOPs that were used; 0 for a request that was not run.
        """
        with self._lock:
            now = self._clock()
            for bucket in (self._buckets.get(client), self._total):
                if bucket is not None:
                    bucket.refill(now)
                    bucket.add(reserved - spent)
                    bucket.requests -= 1

    def levels(self) -> dict[str, float]:
        """FLOPs that each tracked client may use now, and all together under `TOTAL`."""
        with self._lock:
            buckets = dict(self._buckets) | ({} if self._total is None else {TOTAL: self._total})
            now = self._clock()
            for bucket in buckets.values():
                bucket.refill(now)
            return {name: bucket.level for name, bucket in buckets.items()}

    def _own(self, client: str, now: float) -> TokenBucket | Refusal | None:
        """The client's bucket, made if there is room for it; None where clients have no limit."""
        if self.allowance is None:
            return None
        if client not in self._buckets and len(self._buckets) >= self.clients:
            oldest, bucket = next(iter(self._buckets.items()))
            bucket.refill(now)
            wait = bucket.seconds_until(self.allowance.burst)
            if wait or bucket.requests:
                return Refusal(
                    f"the service tracks {self.clients} clients already: try again later", max(wait, 1.0)
                )
            del self._buckets[oldest]
        bucket = self._buckets.setdefault(client, TokenBucket(self.allowance, now))
        self._buckets.move_to_end(client)
        return bucket


def _refusal(buckets: dict[str, TokenBucket], flops: float) -> Refusal:
    """The refusal of a request that needs some FLOPs at least."""
    name, bucket = max(buckets.items(), key=lambda pair: pair[1].seconds_until(flops))
    whose = "the budget of all clients together" if name == TOTAL else "your budget"
    reason = f"{whose} is used up: try again later"
    if flops > (burst := bucket.allowance.burst):
        reason = f"the request needs {flops:.3g} FLOPs, and {whose} never holds more than {burst:.3g}: send fewer texts"
    return Refusal(reason, max(bucket.seconds_until(flops), 1.0))
